"""One step of an LSTM: parameters, state and gates."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LSTMParams(NamedTuple):
    """Parameters of one layer in one direction; gates in the order i, f, g, o on the last axis."""

    kernel_ih: Float[Array, "features 4*hidden"]
    kernel_hh: Float[Array, "hidden 4*hidden"]
    bias: Float[Array, " 4*hidden"]


class LSTMState(NamedTuple):
    """State of one layer in one direction: the hidden output h, the cell's memory c."""

    h: Float[Array, "batch hidden"]
    c: Float[Array, "batch hidden"]


Mark: TypeAlias = Callable[[str, jax.Array], jax.Array]
"""(name, x) → x for the "gates", "c" and "h" of a step; changes or records their gradient."""


def no_mark(name: str, x: jax.Array) -> jax.Array:
    """Return x; its gradient is neither changed nor recorded."""
    del name
    return x


def product(
    x: Float[Array, "*rows features"], kernel: Float[Array, "features columns"], dtype: jnp.dtype
) -> Float[Array, "*rows columns"]:
    """Return x · kernel: factors in the kernel's dtype, sums and result in `dtype`."""
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=dtype)


def apply_gates(
    z: Float[Array, "batch 4*hidden"], c: Float[Array, "batch hidden"], mark: Mark = no_mark
) -> LSTMState:
    """Return the new state from the pre-activations of the gates.

    c′ = σ(z_f) ⊙ c + σ(z_i) ⊙ tanh(z_g);  h′ = σ(z_o) ⊙ tanh(c′)

    Reference: Hochreiter & Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; with the forget
    gate of Gers, Schmidhuber & Cummins, 2000, doi:10.1162/089976600300015015.
    """
    i, f, g, o = jnp.split(mark("gates", z), 4, axis=-1)  # [batch, hidden] each
    c = mark("c", jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g))
    return LSTMState(mark("h", jax.nn.sigmoid(o) * jnp.tanh(c)), c)


def lstm_cell(
    params: LSTMParams,
    x: Float[Array, "batch features"],
    state: LSTMState,
    mark: Mark = no_mark,
) -> LSTMState:
    """Return the state after one input: z = x·kernel_ih + h·kernel_hh + bias, then the gates."""
    dtype = state.c.dtype
    # [batch, 4·hidden]
    z = product(x, params.kernel_ih, dtype) + product(state.h, params.kernel_hh, dtype)
    return apply_gates(z + jnp.expand_dims(params.bias.astype(dtype), 0), state.c, mark)
