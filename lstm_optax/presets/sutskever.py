"""Momentum and Nesterov's method as in Sutskever et al., with their momentum schedule."""

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import RATE, SHARE
from lstm_optax.transforms import (
    MomentumState,
    find_states,
    momentum,
    nesterov,
    scale_by_learning_rate,
)
from lstm_optax.transforms.dtypes import cast_like
from lstm_optax.transforms.scalars import Scalar

__all__ = ["classical_momentum", "eval_params", "momentum_schedule", "nesterov_momentum"]


def momentum_schedule(mu_max: Scalar = 0.99) -> optax.Schedule:
    """Return the momentum schedule, which starts at .5 and increases every 250 steps.

        μₜ = min(1 − 2^(−1 − log₂(⌊t/250⌋ + 1)), μ_max),  t = 0 at the first step

    Args:
      mu_max: in [0, 1]; the paper compares 0, .9, .99, .995 and .999, and uses .9 for the last
        steps.

    Raises:
      ValueError: μ_max is a number out of range.

    Reference: Sutskever et al., 2013, ICML, equation 5.
    """
    SHARE.check(mu_max=mu_max)
    return lambda count: jnp.minimum(1 - 0.5 / (jnp.asarray(count) // 250 + 1), mu_max)


def classical_momentum(
    learning_rate: optax.ScalarOrSchedule, mu_max: optax.ScalarOrSchedule = 0.99
) -> optax.GradientTransformationExtraArgs:
    """Descend with the paper's scheduled momentum, with the learning rate inside the velocity.

        v ← μₜ v − ε g(θ);  θ ← θ + v

    Args:
      learning_rate: ε ≥ 0; a number, a traced scalar, or a schedule.
      mu_max: in [0, 1], the limit of `momentum_schedule`; or a schedule of the momentum.

    Raises:
      ValueError: a number is out of range.

    Reference: Sutskever et al., 2013, ICML, equations 1 and 2.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(mu_max=mu_max)
    return optax.chain(scale_by_learning_rate(learning_rate), momentum(_schedule(mu_max)))


def nesterov_momentum(
    learning_rate: optax.ScalarOrSchedule, mu_max: optax.ScalarOrSchedule = 0.99
) -> optax.GradientTransformationExtraArgs:
    """Descend with Nesterov's method, exact for scheduled momentum and learning rate.

        v ← μₜ v − ε g(θ + μₜ v);  θ ← θ + v

    The learning rate is inside the velocity. The stored parameters, at which the gradient is
    evaluated, are Θ = θ + μₜ v, with updates μₜ₊₁ v − ε g. `eval_params` returns θ.

    Args:
      learning_rate: ε ≥ 0; a number, a traced scalar, or a schedule.
      mu_max: in [0, 1], the limit of `momentum_schedule`; or a schedule of the momentum.

    Raises:
      ValueError: a number is out of range.

    Reference: Sutskever et al., 2013, ICML, equations 3 and 4.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(mu_max=mu_max)
    velocity = momentum(_schedule(mu_max))
    return optax.chain(scale_by_learning_rate(learning_rate), nesterov(velocity))


def eval_params(
    state: optax.OptState, params: optax.Params, mu_max: optax.ScalarOrSchedule = 0.99
) -> optax.Params:
    """Return the parameters θ = Θ − μ v of `nesterov_momentum` from the stored parameters Θ.

    Args:
      state: the state of `nesterov_momentum`.
      params: Θ, the parameters after the last step.
      mu_max: the value passed to `nesterov_momentum`.

    Raises:
      ValueError: the state does not hold exactly one velocity, as that of `nesterov_momentum`
        does, or `mu_max` is out of range.

    Reference: Sutskever et al., 2013, ICML, section 2; Bengio et al., 2013, arXiv:1212.0901.
    """
    SHARE.or_schedule().check(mu_max=mu_max)
    found = find_states(state, MomentumState)
    if len(found) != 1:
        raise ValueError(
            f"the state holds {len(found)} velocities, but must hold one: pass the state of "
            "nesterov_momentum"
        )
    mu = _schedule(mu_max)(found[0].count)
    return cast_like(jax.tree.map(lambda p, v: p - mu * v, params, found[0].mu), params)


def _schedule(mu_max: optax.ScalarOrSchedule) -> optax.Schedule:
    return mu_max if callable(mu_max) else momentum_schedule(mu_max)
