"""Direction estimators: running sums and averages of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, SHARE
from lstm_optax.transforms.dtypes import accumulate, cast_like, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, as_schedule, complement, increment


class MomentumState(NamedTuple):
    """State of `momentum`."""

    count: jax.Array  # int32 []
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def momentum(decay: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Accumulate a decaying sum of the updates (heavy-ball momentum).

        μ ← β μ + g;  returns μ

    For a constant gradient μ converges to g / (1 − β). The output has the dtype of the updates; the
    sum is stored in float32 or wider. Equal to `optax.trace`.

    Args:
      decay: β in [0, 1]; a number, a traced scalar, or a schedule of this link's own step count,
        which is 0 at the first step.

    Raises:
      ValueError: β is a number outside [0, 1].

    Reference: Polyak, 1964, doi:10.1016/0041-5553(64)90137-5.
    """
    SHARE.or_schedule().check(decay=decay)
    return unchecked_momentum(decay)


def unchecked_momentum(decay: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Return `momentum` without the check of a number β, for sources that allow β > 1."""
    beta = as_schedule(decay, SHARE)

    def init(params):
        return MomentumState(jnp.zeros([], jnp.int32), moments_like(params))

    @jax.named_scope("momentum")
    def update(updates, state, params=None):
        del params
        b = beta(state.count)
        mu = accumulate(lambda g, m: b * m + g, updates, state.mu)
        return cast_like(mu, updates), MomentumState(increment(state.count), mu)

    return optax.GradientTransformation(init, update)


class EmaState(NamedTuple):
    """State of `ema`."""

    count: jax.Array  # int32 []
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def ema(decay: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Estimate the mean gradient by an exponential moving average that starts at zero.

        μ ← β μ + (1 − β) g;  returns μ

    Early estimates are too small by a factor 1 − βᵗ, which `debias` corrects. Returns the dtype of
    the moment (float32 or wider). Equal to `optax.ema(decay, debias=False)`.

    Args:
      decay: β in [0, 1); a number, a traced scalar, or a schedule of this link's own step count,
        which is 0 at the first step.

    Raises:
      ValueError: β is a number outside [0, 1).

    Reference: Kingma & Ba, 2015, arXiv:1412.6980.
    """
    DECAY.or_schedule().check(decay=decay)
    beta = as_schedule(decay, DECAY)

    def init(params):
        return EmaState(jnp.zeros([], jnp.int32), moments_like(params))

    @jax.named_scope("ema")
    def update(updates, state, params=None):
        del params
        b = beta(state.count)
        mu = accumulate(lambda g, m: b * m + complement(b) * g, updates, state.mu)
        return mu, EmaState(increment(state.count), mu)

    return optax.GradientTransformation(init, update)


class DampedMomentumState(NamedTuple):
    """State of `damped_momentum`."""

    count: jax.Array  # int32 []
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def damped_momentum(decay: Scalar, dampening: Scalar) -> optax.GradientTransformation:
    """Accumulate momentum with PyTorch's dampening.

        μ₁ = g,  then  μ ← β μ + (1 − d) g;  returns μ

    It differs from (1 − d) times `momentum` in that the first gradient is not dampened. The output
    has the dtype of the updates.

    Args:
      decay: β in [0, 1].
      dampening: d in [0, 1]; d = 0 equals `momentum`.

    Raises:
      ValueError: β or d is a number outside [0, 1].

    Reference: `torch.optim.SGD`, PyTorch 2.13.
    """
    SHARE.check(decay=decay, dampening=dampening)
    return unchecked_damped_momentum(decay, dampening)


def unchecked_damped_momentum(decay: Scalar, dampening: Scalar) -> optax.GradientTransformation:
    """Return `damped_momentum` without range checks, for presets whose source has wider ranges."""

    def init(params):
        return DampedMomentumState(jnp.zeros([], jnp.int32), moments_like(params))

    @jax.named_scope("damped_momentum")
    def update(updates, state, params=None):
        del params
        weight = jnp.where(state.count == 0, 1.0, complement(dampening))
        mu = accumulate(lambda g, m: decay * m + weight * g, updates, state.mu)
        return cast_like(mu, updates), DampedMomentumState(increment(state.count), mu)

    return optax.GradientTransformation(init, update)
