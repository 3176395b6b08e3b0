"""The parameters of one LSTM layer as a Flax NNX module: how they start, what drops some."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from lstm_optax.checks import DECAY
from lstm_optax.gates import GATES, gate_slice
from lstm_optax.lstm.cell import LSTMParams


class LSTMWeights(nnx.Module):
    """The parameters of one layer in one direction.

    kernel_ih [features, 4·hidden] is LeCun-normal; kernel_hh [hidden, 4·hidden] has one orthogonal
    block for each gate; bias [4·hidden] is zero, but `forget_bias` at the forget gate.
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
        dtype = jnp.promote_types(param_dtype, jnp.float32)  # no QR in bfloat16
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
        """Return the parameters as `lstm_sequence` takes them."""
        return LSTMParams(self.kernel_ih[...], self.kernel_hh[...], self.bias[...])


def make_dropout(
    name: str,
    rate: float,
    *,
    locked: bool = False,
    time_axis: int = 0,
    rngs: nnx.Rngs | None = None,
) -> nnx.Dropout:
    """Return the dropout of `rate`; `locked`, one whose mask is the same along the time axis.

    It keeps a stream of its own of `rngs`, see `keep_stream`.

    Raises:
      ValueError: a rate out of range, which is called `name`, or `locked` without a rate.
    """
    DECAY.check(**{name: rate})
    if locked and not rate:
        raise ValueError(
            f"locked_dropout=True needs a {name} above 0: it makes the mask of {name} the same at "
            f"all steps"
        )
    return keep_stream(nnx.Dropout(rate, broadcast_dims=(time_axis,) if locked else ()), rngs)


def keep_stream(dropout: nnx.Dropout, rngs: nnx.Rngs | None) -> nnx.Dropout:
    """Store a stream of `rngs` in the module, as `nnx.Dropout(rate, rngs=rngs)` does.

    Without a rate, or where `rngs` has neither a stream "dropout" nor a default one, there is
    nothing to store: the module stays without state, and a call needs its own `rngs`.
    """
    if dropout.rate and rngs is not None and {"dropout", "default"} & set(rngs):
        dropout.rngs = rngs["dropout"].fork()
    return dropout
