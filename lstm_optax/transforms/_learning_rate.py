"""The learning rate as a link, whose place in a chain is part of a rule's definition."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import RATE, SIZE
from lstm_optax.transforms.dtypes import keep_dtype, real_only
from lstm_optax.transforms.scalars import as_schedule, scalar


class ScaleByLearningRateState(NamedTuple):
    """The rate of the last step, and the state of Optax's link."""

    rate: jax.Array  # float [], η of the last step; before the first step, that of the first
    inner: optax.OptState  # the count of a schedule


def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by the negative learning rate.

        gives −η u

    `optax.scale_by_learning_rate`, except that a traced rate does not change the dtype of the
    updates, and that the state holds the rate, where `fit` finds it for its records.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule of this link's own count,
        which is 0 at the first step.

    Raises:
      ValueError: η is a number that is negative or not finite.
    """
    RATE.check(learning_rate=learning_rate)
    rate_at = as_schedule(learning_rate, SIZE)
    moves = callable(learning_rate)
    link = keep_dtype(optax.scale_by_learning_rate(rate_at if moves else learning_rate))

    def rate(inner):
        value = rate_at(inner.count) if moves else learning_rate
        return jnp.array(value, float)  # a copy, since training donates the state

    def init(params):
        inner = link.init(params)
        return ScaleByLearningRateState(rate(inner), inner)

    def update(updates, state, params=None, **extra_args):
        scaled, inner = link.update(updates, state.inner, params)
        return scaled, ScaleByLearningRateState(rate(state.inner), inner)

    return optax.GradientTransformationExtraArgs(init, update)


@real_only
def scale_by_rate_factor() -> optax.GradientTransformationExtraArgs:
    """Scale by a factor that each call of `update` is given, such as a window's relative length.

        gives f u

    `update(updates, state, params, rate_factor=f)`; f is 1 where none is given. After the learning
    rate in a chain it scales the rate of that one step. Where momentum follows the rate, as in
    `momentum_sgd`, it scales the step and leaves the velocity as it is.

    Reference: Merity, Keskar & Socher, 2018, section 4.1, arXiv:1708.02182, who scale the rate by
    the length of a window that varies.
    """

    def update(updates, state, params=None, *, rate_factor=1.0, **extra_args):
        SIZE.check(rate_factor=rate_factor)
        factor = scalar(rate_factor)
        scaled = jax.tree.map(lambda u: u * factor.astype(jnp.result_type(u)), updates)
        return scaled, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
