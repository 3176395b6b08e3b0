"""Nesterov's look-ahead, and Nadam's direction with Dozat's momentum schedule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import BOUND, DECAY, check_flags, check_transformations
from lstm_optax.transforms.dtypes import accumulate, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, complement, increment, scalar


class NesterovState(NamedTuple):
    """State of `nesterov`."""

    inner: optax.OptState


@real_only
def nesterov(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Look one step ahead: update `inner` twice with the same gradient, keep the first state.

        state ← inner.update(g, state);  returns the updates of inner.update(g, state)

    `nesterov(momentum(β))` returns β μₜ + g, as `nesterov=True` of PyTorch and `optax.trace` does;
    `nesterov(ema(β))` returns β μₜ + (1 − β) g. In the second update, a schedule in `inner` is
    evaluated at the next step count, as Nesterov's method with a scheduled momentum requires.

    Args:
      inner: an estimator of the direction.

    Raises:
      ValueError: `inner` is not a gradient transformation.

    Reference: Nesterov, 1983; Sutskever et al., 2013, ICML, section 2.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return NesterovState(inner.init(params))

    @jax.named_scope("nesterov")
    def update(updates, state, params=None, **extra_args):
        _, now = inner.update(updates, state.inner, params, **extra_args)
        ahead, _ = inner.update(updates, now, params, **extra_args)
        return ahead, NesterovState(now)

    return optax.GradientTransformationExtraArgs(init, update)


class DozatMomentumState(NamedTuple):
    """State of `dozat_momentum`."""

    count: jax.Array  # int32 []
    weight: jax.Array  # float []; 1 − Pₜ, 0 before the first step
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def dozat_momentum(
    decay: Scalar, psi: Scalar, *, scheduled_average: bool = False
) -> optax.GradientTransformation:
    """Estimate Nadam's direction, with Dozat's momentum schedule.

        μₜ = β (1 − ½ · 0.96^(ψ t)),  Pₜ = μ₁ μ₂ … μₜ
        m ← β m + (1 − β) g
        returns μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ)

    The state stores 1 − P instead of P, updated by 1 − Pₜ = (1 − μₜ) + μₜ (1 − Pₜ₋₁), which loses
    no digits.

    Args:
      decay: β in [0, 1).
      psi: ψ ≥ 0, the speed of the schedule: .004 in PyTorch, 1 in Keras 3; ∞ for no schedule, as
        in Optax's Nadam.
      scheduled_average: use μₜ instead of β in the average m, as in Dozat's paper of 2016.

    Raises:
      ValueError: β or ψ is a number out of range.

    Reference: Dozat, 2016, ICLR workshop, "Incorporating Nesterov Momentum into Adam".
    """
    DECAY.check(decay=decay)
    BOUND.check(psi=psi)
    check_flags(scheduled_average=scheduled_average)

    def momentum_at(t):
        reduction = 0.5 * jnp.power(0.96, psi * scalar(t))
        return decay * (1 - reduction), complement(decay) + decay * reduction  # μₜ and 1 − μₜ

    def init(params):
        return DozatMomentumState(jnp.zeros([], jnp.int32), scalar(0), moments_like(params))

    @jax.named_scope("dozat_momentum")
    def update(updates, state, params=None):
        del params
        count = increment(state.count)
        mu_t, one_minus_mu_t = momentum_at(count)
        mu_next, one_minus_mu_next = momentum_at(count + 1)
        weight = scalar(one_minus_mu_t + mu_t * state.weight)  # 1 − Pₜ
        next_weight = one_minus_mu_next + mu_next * weight  # 1 − Pₜ₊₁
        b, one_minus_b = (mu_t, one_minus_mu_t) if scheduled_average else (decay, complement(decay))
        mu = accumulate(lambda g, m: b * m + one_minus_b * g, updates, state.mu)
        direction = accumulate(
            lambda g, m: mu_next / next_weight * m + one_minus_mu_t / weight * g, updates, mu
        )
        return direction, DozatMomentumState(count, weight, mu)

    return optax.GradientTransformation(init, update)
