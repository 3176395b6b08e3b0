"""Momentum that rescales its velocity when the learning rate changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import RATE, SHARE, SIZE
from lstm_optax.transforms.dtypes import accumulate, cast_like, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, as_schedule, increment, scalar


class CorrectedMomentumState(NamedTuple):
    """State of `corrected_momentum`."""

    count: jax.Array  # int32 []
    rate: jax.Array  # float []; ηₜ₋₁, 0 before the first step
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def corrected_momentum(
    decay: Scalar, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """Accumulate updates that include the learning rate, and rescale the sum when it changes.

        v ← β (ηₜ / ηₜ₋₁) v + u;  returns v;  v restarts at u after a step with η = 0

    Used after `scale_by_learning_rate(η)`. A change of η takes effect at once, as if η were outside
    the velocity; with `momentum` instead, it takes about 1/(1 − β) steps.

    Args:
      decay: β in [0, 1].
      learning_rate: η ≥ 0, the same rate that scales the updates: a number, a traced scalar that
        may change between steps, or a schedule of this link's own step count.

    Raises:
      ValueError: β or η is a number out of range.

    Reference: Goyal et al., 2017, arXiv:1706.02677, section 3, remark 2.
    """
    SHARE.check(decay=decay)
    RATE.check(learning_rate=learning_rate)
    rate_at = as_schedule(learning_rate, SIZE)

    def init(params):
        return CorrectedMomentumState(jnp.zeros([], jnp.int32), scalar(0), moments_like(params))

    @jax.named_scope("corrected_momentum")
    def update(updates, state, params=None):
        del params
        rate = scalar(rate_at(state.count))
        started = state.rate > 0
        ratio = jnp.where(started, rate / jnp.where(started, state.rate, 1), 0)
        mu = accumulate(lambda u, v: decay * ratio * v + u, updates, state.mu)
        state = CorrectedMomentumState(increment(state.count), rate, mu)
        return cast_like(mu, updates), state

    return optax.GradientTransformation(init, update)
