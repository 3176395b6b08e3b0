"""Parameters of one LSTM layer as a Flax NNX module, with initialisation and weight dropout."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from lstm_optax.checks import DECAY
from lstm_optax.gates import GATES, gate_slice
from lstm_optax.lstm.cell import LSTMParams


class LSTMWeights(nnx.Module):
    """Parameters of one layer in one direction.

    kernel_ih [features, 4·hidden] is LeCun-normal; kernel_hh [hidden, 4·hidden] has one orthogonal
    block for each gate; bias [4·hidden] is `forget_bias` at the forget gate, else 0.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: float = 1.0,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.promote_types(param_dtype, jnp.float32)  # JAX has no QR in bfloat16
        shape, square = (in_features, 4 * hidden_features), (hidden_features, hidden_features)
        orthogonal, normal = nnx.initializers.orthogonal(), nnx.initializers.lecun_normal()
        kernel_ih = normal(rngs.params(), shape, dtype)
        blocks = [orthogonal(rngs.params(), square, dtype) for _ in GATES]
        kernel_hh = jnp.concatenate(blocks, axis=1)
        forget = gate_slice("forget", hidden_features)
        bias = jnp.zeros(4 * hidden_features, dtype).at[forget].set(forget_bias)
        self.kernel_ih: nnx.Param[Array] = nnx.Param(kernel_ih.astype(param_dtype))
        self.kernel_hh: nnx.Param[Array] = nnx.Param(kernel_hh.astype(param_dtype))
        self.bias: nnx.Param[Array] = nnx.Param(bias.astype(param_dtype))

    def params(self) -> LSTMParams:
        """Return the parameters in the form that `lstm_sequence` accepts."""
        return LSTMParams(self.kernel_ih[...], self.kernel_hh[...], self.bias[...])


def make_dropout(
    name: str,
    rate: float,
    *,
    locked: bool = False,
    time_axis: int = 0,
    rngs: nnx.Rngs | None = None,
) -> nnx.Dropout:
    """Return a dropout module; if `locked`, with the same mask at all steps of the time axis.

    The module stores its own stream of `rngs`, see `keep_stream`.

    Raises:
      ValueError: the rate, called `name` in the message, is not in [0, 1), or `locked` without a
        rate.
    """
    DECAY.check(**{name: rate})
    if locked and not rate:
        raise ValueError(
            f"locked_dropout=True needs a {name} above 0: it fixes the mask of {name} over all "
            f"steps"
        )
    return keep_stream(nnx.Dropout(rate, broadcast_dims=(time_axis,) if locked else ()), rngs)


def keep_stream(dropout: nnx.Dropout, rngs: nnx.Rngs | None) -> nnx.Dropout:
    """Store a stream of `rngs` in the module, as `nnx.Dropout(rate, rngs=rngs)` does.

    Nothing is stored if the rate is 0, or if `rngs` has neither a stream "dropout" nor a default
    one: the module has no state, and each call needs its own `rngs`.
    """
    if dropout.rate and rngs is not None and {"dropout", "default"} & set(rngs):
        dropout.rngs = rngs["dropout"].fork()
    return dropout
