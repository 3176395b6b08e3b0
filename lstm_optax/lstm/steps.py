"""What a time step does besides the gates: reset, freeze, detach, record and clip gradients."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm._probe import GradientFlow, tap
from lstm_optax.lstm.cell import LSTMState, Mark, unmarked
from lstm_optax.lstm.cotangents import CotangentClip, CotangentNormClip

Clip = CotangentClip | CotangentNormClip | None

Gradient: TypeAlias = Literal["stored", "remat", "autodiff"]
"""Where the backward pass has the gates from: kept, computed anew, or left to JAX."""


class Steps(NamedTuple):
    """What each time step does to each row and to its gradient, besides the gates."""

    fresh: Bool[Array, "time batch"] | None  # zero the carry before this step
    alive: Bool[Array, "time batch"] | None  # else keep the carry, and give zero
    detach: Bool[Array, "time batch"] | None  # no gradient by h through the recurrent product
    probe: GradientFlow | None  # record the gradient as the derivative by this


def before_step(state: LSTMState, fresh: Bool[Array, " batch"] | None) -> LSTMState:
    """Return the carry with the rows zeroed that begin anew."""
    if fresh is None:
        return state
    return jax.tree.map(lambda s: jnp.where(fresh[:, None], 0, s), state)


def detached(state: LSTMState, detach: Bool[Array, " batch"] | None) -> LSTMState:
    """Return the state as the step reads it, without a gradient by h in the rows detached."""
    if detach is None:
        return state
    return state._replace(h=jnp.where(detach[:, None], jax.lax.stop_gradient(state.h), state.h))


def marking(clip: Clip, flow: GradientFlow | None) -> Mark:
    """Return what a step does to the gradients by its gates, c and h: record them, then clip."""
    if clip is None and flow is None:
        return unmarked

    def mark(name: str, x: jax.Array) -> jax.Array:
        x = x if clip is None else clip.mark(name, x)
        return x if flow is None else tap(name, x, flow)  # the gradient comes from behind

    return mark


def after_step(
    old: LSTMState, new: LSTMState, alive: Bool[Array, " batch"] | None
) -> tuple[LSTMState, Float[Array, "batch hidden"]]:
    """Return the carry and the output, with the rows frozen that have ended."""
    if alive is None:
        return new, new.h
    keep = alive[:, None]
    state = jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)
    return state, jnp.where(keep, new.h, 0)
