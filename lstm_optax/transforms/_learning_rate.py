"""The learning rate as a link; its position in the chain is part of a rule's definition."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import RATE, SIZE
from lstm_optax.transforms.dtypes import keep_dtype, real_only
from lstm_optax.transforms.scalars import as_schedule, scalar


class ScaleByLearningRateState(NamedTuple):
    """State of `scale_by_learning_rate`."""

    rate: jax.Array  # float []; η of the last step, or before any step η of the first
    inner: optax.OptState  # state of `optax.scale_by_learning_rate`: the step count of a schedule


def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by the negative learning rate.

        u ← −η u

    Differs from `optax.scale_by_learning_rate` in two points: a traced rate does not change the
    dtype of the updates, and the state stores the rate, from which `fit` records it.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule of this link's own step count,
        which is 0 at the first step.

    Raises:
      ValueError: η is a number that is negative or not finite.
    """
    RATE.check(learning_rate=learning_rate)
    rate_at = as_schedule(learning_rate, SIZE)
    is_schedule = callable(learning_rate)
    link = keep_dtype(optax.scale_by_learning_rate(rate_at if is_schedule else learning_rate))

    def rate(inner):
        value = rate_at(inner.count) if is_schedule else learning_rate
        return jnp.array(value, float)  # a copy, because training donates the state

    def init(params):
        inner = link.init(params)
        return ScaleByLearningRateState(rate(inner), inner)

    def update(updates, state, params=None, **extra_args):
        scaled, inner = link.update(updates, state.inner, params)
        return scaled, ScaleByLearningRateState(rate(state.inner), inner)

    return optax.GradientTransformationExtraArgs(init, update)


class ScaleByRateFactorState(NamedTuple):
    """State of `scale_by_rate_factor`."""

    rate_factor: jax.Array  # float []; r, 1 until a rewind of `fit` lowers it


@real_only
def scale_by_rate_factor() -> optax.GradientTransformationExtraArgs:
    """Scale by a factor passed to `update`, such as the relative length of a window.

        u ← r f u

    f is passed as `update(updates, state, params, rate_factor=f)`; the default is 1. r is a value
    in the state, 1 at first: `fit` lowers it at a `Rewind`, without a new program. After
    the learning rate in a chain, both scale the learning rate of that step. At the end of a chain
    with momentum after the learning rate, such as `momentum_sgd`, they scale the step but not the
    velocity.

    Reference: Merity, Keskar & Socher, 2018, arXiv:1708.02182, section 4.1: the learning rate is
    scaled by the length of a window that varies.
    """

    def init(params):
        del params
        return ScaleByRateFactorState(scalar(1))

    def update(updates, state, params=None, *, rate_factor=1.0, **extra_args):
        SIZE.check(rate_factor=rate_factor)
        factor = state.rate_factor * scalar(rate_factor)
        scaled = jax.tree.map(lambda u: u * factor.astype(jnp.result_type(u)), updates)
        return scaled, state

    return optax.GradientTransformationExtraArgs(init, update)
