"""The parameters of one LSTM layer as a Flax NNX module: how they start, what drops some."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

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
        self.kernel_ih = nnx.Param(kernel_ih.astype(param_dtype))
        self.kernel_hh = nnx.Param(kernel_hh.astype(param_dtype))
        self.bias = nnx.Param(bias.astype(param_dtype))

    def params(self) -> LSTMParams:
        """Return the parameters as `lstm_sequence` takes them."""
        return LSTMParams(self.kernel_ih[...], self.kernel_hh[...], self.bias[...])


def make_dropout(name: str, rate: float, *, locked: bool = False) -> nnx.Dropout:
    """Return the dropout of `rate`; `locked`, one whose mask is the same along the first axis.

    Raises:
      ValueError: a rate out of range; it says `name`.
    """
    DECAY.check(**{name: rate})
    return nnx.Dropout(rate, broadcast_dims=(0,) if locked else ())
