"""Reference backend: a plain scan of the cell, slow and obvious; other backends must match it."""

import jax
from jaxtyping import Array, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.steps import (
    Clip,
    Gradient,
    Steps,
    after_step,
    before_step,
    detach_h,
    make_mark,
)


def reference_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "autodiff",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run the cell over time, one step after the other; its gradient is JAX's.

    Raises:
      ValueError: gradient="remat", since JAX's gradient stores all it needs.
    """
    if gradient == "remat":
        raise ValueError(
            "backend='reference' stores all that JAX stores, so it takes no gradient='remat': use "
            "backend='fused', or 'auto'"
        )

    # The loop sums the gradients of the parameters, so in the state's dtype.
    wide = jax.tree.map(lambda p: p.astype(state.c.dtype), params)

    def body(state, inputs):
        x, now = inputs  # x [batch, features]
        factors = jax.tree.map(lambda w, p: w.astype(p.dtype), wide, params)
        state = before_step(state, now.reset)  # h, c [batch, hidden]
        mark = make_mark(clip, now.probe)
        new = lstm_cell(factors, x, detach_h(state, now.detach), mark)
        return after_step(state, new, now.valid)

    state, outputs = jax.lax.scan(body, state, (x, steps), reverse=reverse)
    return outputs, state
