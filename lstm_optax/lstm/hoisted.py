"""The scan with the product of the inputs hoisted out: one matrix product for all time steps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, apply_gates, product
from lstm_optax.lstm.reference import Steps, after_step, before_step


def hoisted_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Multiply all inputs by kernel_ih at once, then scan the recurrence alone."""
    dtype = state.c.dtype
    bias = jnp.expand_dims(params.bias.astype(dtype), (0, 1))
    projected = product(x, params.kernel_ih, dtype) + bias

    def body(state, inputs):
        z, fresh, alive = inputs
        state = before_step(state, fresh)
        new = apply_gates(z + product(state.h, params.kernel_hh, dtype), state.c)
        return after_step(state, new, alive)

    state, outputs = jax.lax.scan(body, state, (projected, *steps), reverse=reverse)
    return outputs, state
