"""The model of the tasks on whole sequences: an LSTM and a linear output layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float, Num

from lstm_optax.lstm import LSTM
from lstm_optax.models import SequenceModel, sequence_losses


class ModelFunctions(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: key → parameters.
      apply: (params, inputs [time, batch, features]) → outputs [batch, outputs], or one for each
        step, [time, batch, outputs].
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any], Float[Array, "*steps batch outputs"]]


def make_model(
    features: int, hidden: int, outputs: int, *, every_step: bool = False
) -> ModelFunctions:
    """Return the functions of a `SequenceModel` around one LSTM layer.

    Args:
      features: number of input features.
      hidden: number of hidden units.
      outputs: number of outputs.
      every_step: return an output for every step.

    Raises:
      ValueError: a size below 1.
    """

    def build(key: jax.Array) -> SequenceModel:
        rngs = nnx.Rngs(key)
        lstm = LSTM(features, hidden, rngs=rngs)
        return SequenceModel(lstm, outputs, every_step=every_step, rngs=rngs)

    graphdef = nnx.graphdef(nnx.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0))))

    def apply(params: Any, inputs: Any) -> Float[Array, "*steps batch outputs"]:
        return nnx.merge(graphdef, params)(inputs)[0]

    return ModelFunctions(lambda key: nnx.state(build(key)), apply)


def mean_loss(
    outputs: Float[Array, "*steps batch outputs"], targets: Any, valid: Any = None
) -> Num[Array, ""]:
    """Return `sequence_losses` as a mean."""
    total, count = sequence_losses(outputs, targets, valid)
    return total / count
