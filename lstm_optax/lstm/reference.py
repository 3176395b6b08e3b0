"""The plain scan of the cell: slow, obvious, and the oracle of every other backend."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell


class Steps(NamedTuple):
    """What each time step does to the carry of each row, besides the gates."""

    fresh: Bool[Array, "time batch"] | None  # zero the carry before this step
    alive: Bool[Array, "time batch"] | None  # else keep the carry, and give zero


def before_step(state: LSTMState, fresh: Bool[Array, " batch"] | None) -> LSTMState:
    """Return the carry with the rows zeroed that begin anew."""
    if fresh is None:
        return state
    return jax.tree.map(lambda s: jnp.where(fresh[:, None], 0, s), state)


def after_step(
    old: LSTMState, new: LSTMState, alive: Bool[Array, " batch"] | None
) -> tuple[LSTMState, Float[Array, "batch hidden"]]:
    """Return the carry and the output, with the rows frozen that have ended."""
    if alive is None:
        return new, new.h
    keep = alive[:, None]
    state = jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)
    return state, jnp.where(keep, new.h, 0)


def reference_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run the cell over time, one step after the other."""

    def body(state, inputs):
        x, fresh, alive = inputs
        state = before_step(state, fresh)
        return after_step(state, lstm_cell(params, x, state), alive)

    state, outputs = jax.lax.scan(body, state, (x, *steps), reverse=reverse)
    return outputs, state
