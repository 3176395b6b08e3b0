"""A wrapper that skips steps whose result would not be finite."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import Range, check_transformations
from lstm_optax.transforms._finite import (
    all_finite,
    is_finite_loss,
    new_if,
    remains_finite,
    zero_unless,
)
from lstm_optax.transforms.dtypes import real_only
from lstm_optax.transforms.scalars import Scalar, increment


class GuardState(NamedTuple):
    """State of `guard`."""

    skipped: jax.Array  # int32 []; number of skipped steps
    in_a_row: jax.Array  # int32 []; number of consecutive skipped steps, 0 after a finite step
    gave_up: jax.Array  # bool []; in_a_row ≥ max_consecutive_errors
    inner: optax.OptState


@real_only
def guard(
    inner: optax.GradientTransformation, *, max_consecutive_errors: Scalar = 10
) -> optax.GradientTransformationExtraArgs:
    """Skip a step if its gradients, new state or new parameters are not finite.

    A skipped step returns zero updates and leaves the state of `inner` unchanged, including step
    counts and schedules. Clipping cannot replace it: with a zero gradient, momentum still moves the
    parameters. Checking the gradient alone (`optax.apply_if_finite`) is not enough: the square of a
    finite entry such as 3e19 makes a second moment infinite, and it stays infinite. If the loss is
    passed as `value`, as `fit` does, it must be finite too.

    Args:
      inner: the whole optimizer, including clipping. Put the guard around `optax.MultiSteps`, not
        inside: a NaN would stay in its accumulated gradient.
      max_consecutive_errors: ≥ 1; after this many consecutive skipped steps `gave_up` is True,
        until the next step that is not skipped. `fit` then stops; a custom loop should check it.

    Raises:
      ValueError: `max_consecutive_errors` is a number below 1.

    Reference: none; compare the skipped steps of loss scaling, Micikevicius et al., 2018,
    arXiv:1710.03740, section 3.2.
    """
    check_transformations(inner=inner)
    Range(1).check(max_consecutive_errors=max_consecutive_errors)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return GuardState(  # distinct arrays, because the state may be donated
            skipped=jnp.zeros([], jnp.int32),
            in_a_row=jnp.zeros([], jnp.int32),
            gave_up=jnp.zeros([], jnp.bool_),
            inner=inner.init(params),
        )

    @jax.named_scope("guard")
    def update(updates, state, params=None, **extra_args):
        finite_input = all_finite(updates)
        # Replace the gradient of a skipped step by 0 before `inner` sees it: when several steps are
        # differentiated, a NaN in the branch that `where` discards still makes the gradient NaN.
        finite_updates = zero_unless(finite_input, updates)
        new_updates, new_inner = inner.update(finite_updates, state.inner, params, **extra_args)
        finite = finite_input & remains_finite(new_inner, state.inner)
        if params is None:
            finite &= all_finite(new_updates)
        else:
            finite &= remains_finite(optax.apply_updates(params, new_updates), params)
        finite &= is_finite_loss(extra_args)
        in_a_row = jnp.where(finite, 0, increment(state.in_a_row))
        new_state = GuardState(
            skipped=jnp.where(finite, state.skipped, increment(state.skipped)),
            in_a_row=in_a_row,
            gave_up=jnp.asarray(in_a_row >= max_consecutive_errors, jnp.bool_),
            inner=new_if(finite, new_inner, state.inner),
        )
        return zero_unless(finite, new_updates), new_state

    return optax.GradientTransformationExtraArgs(init, update)
