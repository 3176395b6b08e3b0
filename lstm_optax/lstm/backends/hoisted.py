"""The scan with the input product hoisted out: one matrix product for all time steps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, apply_gates, product
from lstm_optax.lstm.steps import Clip, Steps, after_step, before_step, detach_h, make_mark


def project(
    params: LSTMParams, x: Float[Array, "*steps batch features"], dtype: jnp.dtype
) -> Float[Array, "*steps batch 4*hidden"]:
    """Return x·kernel_ih + bias, the share of the inputs in the pre-activations of all steps."""
    bias = jnp.expand_dims(params.bias.astype(dtype), tuple(range(x.ndim - 1)))
    return product(x, params.kernel_ih, dtype) + bias


def hoisted_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Multiply all inputs by kernel_ih at once, then scan the recurrence; its gradient is JAX's."""
    dtype = state.c.dtype
    kernel = params.kernel_hh.astype(dtype)  # the loop sums its gradient, so in the state's dtype

    def body(state, inputs):
        z, now = inputs  # z [batch, 4·hidden]
        state = before_step(state, now.reset)  # h, c [batch, hidden]
        factor = kernel.astype(params.kernel_hh.dtype)
        z = z + product(detach_h(state, now.detach).h, factor, dtype)
        return after_step(state, apply_gates(z, state.c, make_mark(clip, now.probe)), now.valid)

    inputs = (project(params, x, dtype), steps)
    state, outputs = jax.lax.scan(body, state, inputs, reverse=reverse)
    return outputs, state
