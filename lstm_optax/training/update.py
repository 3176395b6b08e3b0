"""One update of parameters and optimizer; a step that fails leaves both as they were."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.training.metrics import StepMetrics, optimizer_events
from lstm_optax.training.state import TrainState
from lstm_optax.training.update_ratio import update_ratios
from lstm_optax.transforms import global_norm
from lstm_optax.transforms._finite import new_if, remains_finite

Updated = tuple[Any, Any, StepMetrics]
"""Parameters and state of the optimizer, which a failed step leaves as they were, and metrics."""


def update_if_finite(
    optimizer: optax.GradientTransformationExtraArgs,
    loss: jax.Array,
    grads: Any,
    state: TrainState,
    extras: dict[str, Any],
) -> Updated:
    """Update if loss and gradient are finite.

    Only a condition around the whole update both keeps the old numbers and writes the new ones in
    place. A choice between the two afterwards would copy the moments.
    """

    def take(grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state, params, **extras)
        ratios = update_ratios(params, updates)
        return optax.apply_updates(params, updates), opt_state, ratios, _no_sizes(grads)

    def leave(grads, opt_state, params):
        return params, opt_state, _no_ratios(params), _sizes(grads)

    norm = global_norm(grads)
    params, opt_state, ratios, largest = jax.lax.cond(
        jnp.isfinite(loss) & jnp.isfinite(norm),
        take,
        leave,
        grads,
        state.opt_state,
        state.params,
    )
    clipped, never = optimizer_events(state.opt_state, opt_state).clipped, jnp.bool_(False)
    resets = jnp.int32(0)
    metrics = StepMetrics(loss, norm, largest, clipped, never, never, never, resets, ratios)
    return params, opt_state, metrics


def update_and_check(
    optimizer: optax.GradientTransformationExtraArgs,
    loss: jax.Array,
    grads: Any,
    state: TrainState,
    extras: dict[str, Any],
) -> Updated:
    """Update with an optimizer that can skip a step or mend its gradient, and check the result."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **extras)
    events, norm = optimizer_events(state.opt_state, opt_state), global_norm(grads)
    # a guard may wrap the optimizer of some parameters only: the step counts as skipped only if
    # the updates of all parameters are finite
    skipped = jax.lax.cond(
        events.skipped, lambda u: jnp.isfinite(global_norm(u)), lambda u: jnp.bool_(False), updates
    )
    opt_states = state.opt_state, opt_state
    mended = events.zeroed & ~skipped
    norm = jax.lax.cond(
        mended, _mended_norm, lambda norm, *_: norm, norm, grads, updates, opt_states
    )
    taken = skipped | (jnp.isfinite(loss) & jnp.isfinite(norm))
    # under a condition, since a usual step need not read every gradient once more
    largest = jax.lax.cond(taken & ~skipped, _no_sizes, _sizes, grads)
    new = optax.apply_updates(state.params, updates), opt_state
    kept = new_if(taken, new, (state.params, state.opt_state))
    overflowed = skipped & events.overflowed
    metrics = StepMetrics(
        loss,
        norm,
        largest,
        events.clipped,
        skipped,
        events.gave_up,
        overflowed,
        carry_resets=jnp.int32(0),
        update_ratio=update_ratios(state.params, updates),
    )
    return *kept, metrics


def _no_ratios(params: Any) -> jax.Array:
    return jnp.zeros([sum(leaf.ndim > 1 for leaf in jax.tree.leaves(params))])


def _sizes(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.max(jnp.abs(g)), grads)


def _no_sizes(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.zeros([], g.dtype), grads)


def _mended_norm(norm: jax.Array, grads: Any, updates: Any, opt_states: tuple[Any, Any]):
    """Return the norm of the finite entries if a clip replaced all others by 0, else the norm.

    Without a second look, a clip behind the moments would hide that they are NaN, and one of some
    parameters only those of the others.
    """
    mended = jnp.isfinite(global_norm(updates)) & remains_finite(*opt_states[::-1])
    kept = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, jnp.zeros_like(g)), grads)
    return jnp.where(mended, global_norm(kept), norm)
