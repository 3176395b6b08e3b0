"""The model of the tasks with one answer for a sequence: an LSTM and a linear output layer."""

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
      apply: (params, inputs [time, batch, features]) → outputs [batch, outputs].
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any], Float[Array, "batch outputs"]]


def make_model(features: int, hidden: int, outputs: int) -> ModelFunctions:
    """Return the functions of a `SequenceModel` around one LSTM layer.

    Args:
      features: number of input features.
      hidden: number of hidden units.
      outputs: number of outputs.

    Raises:
      ValueError: a size below 1.
    """

    def build(key: jax.Array) -> SequenceModel:
        rngs = nnx.Rngs(key)
        return SequenceModel(LSTM(features, hidden, rngs=rngs), outputs, rngs=rngs)

    graphdef = nnx.graphdef(nnx.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0))))

    def apply(params: Any, inputs: Any) -> Float[Array, "batch outputs"]:
        return nnx.merge(graphdef, params)(inputs)[0]

    return ModelFunctions(lambda key: nnx.state(build(key)), apply)


def mean_loss(
    outputs: Float[Array, "batch outputs"], targets: Any, valid: Any = None
) -> Num[Array, ""]:
    """Return `sequence_losses` as a mean."""
    total, count = sequence_losses(outputs, targets, valid)
    return total / count
