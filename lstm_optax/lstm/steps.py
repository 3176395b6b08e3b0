"""Operations of a time step other than the gates: reset, freeze, detach, record, clip."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm._probe import GradientFlow, tap
from lstm_optax.lstm.cell import LSTMState, Mark, no_mark
from lstm_optax.lstm.cotangents import CotangentClip, CotangentNormClip

Clip = CotangentClip | CotangentNormClip | None

Gradient: TypeAlias = Literal["stored", "remat", "autodiff"]
"""How the backward pass gets the gate activations: stored, recomputed, or by JAX autodiff."""


class Steps(NamedTuple):
    """Masks of all time steps, and the record of their gradients; None where not used."""

    reset: Bool[Array, "time batch"] | None  # the step reads a carry of 0
    valid: Bool[Array, "time batch"] | None  # if False, keep the carry and output 0
    detach: Bool[Array, "time batch"] | None  # no gradient to h through the recurrent product
    probe: GradientFlow | None  # the derivative with respect to it is the record


def before_step(state: LSTMState, reset: Bool[Array, " batch"] | None) -> LSTMState:
    """Return the state with the rows to reset zeroed."""
    if reset is None:
        return state
    return jax.tree.map(lambda s: jnp.where(reset[:, None], 0, s), state)


def detach_h(state: LSTMState, detach: Bool[Array, " batch"] | None) -> LSTMState:
    """Return the state with no gradient to h in the detached rows."""
    if detach is None:
        return state
    return state._replace(h=jnp.where(detach[:, None], jax.lax.stop_gradient(state.h), state.h))


def make_mark(clip: Clip, flow: GradientFlow | None) -> Mark:
    """Return the mark of a step, which records a gradient and then clips it."""
    if clip is None and flow is None:
        return no_mark

    def mark(name: str, x: jax.Array) -> jax.Array:
        # The gradient passes these in reverse order: the tap first, the clip second.
        x = x if clip is None else clip.mark(name, x)
        return x if flow is None else tap(name, x, flow)

    return mark


def after_step(
    old: LSTMState, new: LSTMState, valid: Bool[Array, " batch"] | None
) -> tuple[LSTMState, Float[Array, "batch hidden"]]:
    """Return the carry and the output; rows that are not valid keep their carry and output 0."""
    if valid is None:
        return new, new.h
    valid = valid[:, None]  # [batch, 1]
    state = jax.tree.map(lambda a, b: jnp.where(valid, a, b), new, old)
    return state, jnp.where(valid, new.h, 0)
