"""The plain scan of the cell: slow, obvious, and the oracle of every other backend."""

import jax
from jaxtyping import Array, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.steps import (
    Clip,
    Gradient,
    Steps,
    after_step,
    before_step,
    detached,
    marking,
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
      ValueError: gradient="remat", which asks for memory that JAX's gradient does not save.
    """
    if gradient == "remat":
        raise ValueError(
            "backend='reference' keeps what JAX keeps, so it takes no gradient='remat': use "
            "backend='fused', or 'auto'"
        )

    def body(state, inputs):
        x, now = inputs
        state = before_step(state, now.fresh)
        mark = marking(clip, now.probe)
        return after_step(state, lstm_cell(params, x, detached(state, now.detach), mark), now.alive)

    state, outputs = jax.lax.scan(body, state, (x, steps), reverse=reverse)
    return outputs, state
