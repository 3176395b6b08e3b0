"""Skip a step that would leave something that is not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import Range, check_transformations, concrete, format_value
from lstm_optax.transforms.dtypes import real_only
from lstm_optax.transforms.scalars import Scalar, increment


class GuardState(NamedTuple):
    """State of `guard`."""

    skipped: jax.Array  # steps skipped so far; int32 []
    in_a_row: jax.Array  # of them, those since the last step that was taken; int32 []
    gave_up: jax.Array  # whether these are `max_consecutive_errors` or more; bool []
    inner: optax.OptState


@real_only
def guard(
    inner: optax.GradientTransformation, *, max_consecutive_errors: Scalar = 10
) -> optax.GradientTransformationExtraArgs:
    """Skip a step whose gradients, new moments or new parameters would not be finite.

    A skipped step gives updates of zero and leaves the state of `inner` as it was, counters and
    schedules included: as if there had been no step. A clip cannot do that, since momentum moves
    on under a gradient of zero; and a look at the gradient alone (`optax.apply_if_finite`) misses
    the finite 3e19 whose square makes a second moment infinite for good. A loss passed as `value`,
    as `fit` does, is looked at too.

    Args:
      inner: the whole optimizer, its clip included; also `optax.MultiSteps`, whose accumulation
        would keep a NaN for good were the guard inside it.
      max_consecutive_errors: ≥ 1; after so many skipped steps in a row `gave_up` is set, until a
        step is taken again; `fit` stops on it, a loop of your own should look at it.

    Raises:
      ValueError: `max_consecutive_errors` is a number below 1.

    Reference: none; the counterpart of the skipped steps of mixed precision, Micikevicius et al.,
    2018, arXiv:1710.03740, section 3.2.
    """
    check_transformations(inner=inner)
    Range(1).check(max_consecutive_errors=max_consecutive_errors)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return GuardState(  # no array twice: each may be donated
            skipped=jnp.zeros([], jnp.int32),
            in_a_row=jnp.zeros([], jnp.int32),
            gave_up=jnp.zeros([], jnp.bool_),
            inner=inner.init(params),
        )

    @jax.named_scope("guard")
    def update(updates, state, params=None, **extra_args):
        came_finite = _all_finite(updates)
        # a NaN in a skipped step would make the derivative of all steps NaN
        seen = jax.tree.map(lambda u: jnp.where(came_finite, u, jnp.zeros_like(u)), updates)
        new_updates, new_inner = inner.update(seen, state.inner, params, **extra_args)
        moved = new_updates if params is None else optax.apply_updates(params, new_updates)
        good = came_finite & _stays_finite(new_inner, state.inner)
        good &= _all_finite(moved) if params is None else _stays_finite(moved, params)
        if (value := extra_args.get("value")) is not None:
            if concrete(value) is None:
                raise ValueError(f"value is {format_value(value)}, but must be the loss, a number")
            good &= jnp.isfinite(value)
        in_a_row = jnp.where(good, 0, increment(state.in_a_row))
        new_state = GuardState(
            skipped=jnp.where(good, state.skipped, increment(state.skipped)),
            in_a_row=in_a_row,
            gave_up=jnp.asarray(in_a_row >= max_consecutive_errors, jnp.bool_),
            inner=jax.tree.map(lambda new, old: jnp.where(good, new, old), new_inner, state.inner),
        )
        taken = jax.tree.map(lambda u: jnp.where(good, u, jnp.zeros_like(u)), new_updates)
        return taken, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _all_finite(tree: Any) -> jax.Array:
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.bool_(True)


def _stays_finite(new: Any, old: Any) -> jax.Array:
    """Whether all is finite that was: a state may hold an infinity from the beginning."""

    def leaf(n, o):
        if not jnp.issubdtype(jnp.result_type(n), jnp.inexact):
            return None
        return jnp.all(jnp.isfinite(n) | ~jnp.isfinite(o))

    finite = jax.tree.leaves(jax.tree.map(leaf, new, old))
    return jnp.all(jnp.stack(finite)) if finite else jnp.bool_(True)
