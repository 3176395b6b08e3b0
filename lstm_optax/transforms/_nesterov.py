"""Look ahead: Nesterov's correction, and Dozat's schedule of it."""

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
    """Look one step ahead: push the gradient through `inner` twice, keep the first state.

        gives inner(inner(state, g), g)

    Around `momentum` it gives β μₜ + g (PyTorch's `nesterov=True`, `optax.trace`'s); around `ema`
    β μₜ + (1 − β) g. A schedule inside `inner` is read one count further in the second push, as
    Nesterov's method with a moving momentum asks.

    Args:
      inner: an estimator of the direction.

    Raises:
      ValueError: `inner` is no transformation.

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
    weight: jax.Array  # 1 − P, the sum of the weights in the average; float []
    mu: optax.Updates  # the parameters' tree and shapes


@real_only
def dozat_momentum(
    decay: Scalar, psi: Scalar, *, scheduled_average: bool = False
) -> optax.GradientTransformation:
    """Estimate Nadam's direction, with Dozat's schedule of the momentum.

        μₜ = β (1 − ½ · 0.96^(ψ t)),  Pₜ = μ₁ μ₂ … μₜ
        m ← β m + (1 − β) g
        gives  μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ)

    1 − P is carried instead of P, by 1 − Pₜ = (1 − μₜ) + μₜ (1 − Pₜ₋₁), which loses no digits.

    Args:
      decay: β in [0, 1).
      psi: ψ ≥ 0, the speed of the schedule: PyTorch .004, Keras 3 1, and ∞ for no schedule, which
        is Optax's Nadam.
      scheduled_average: average with μₜ in place of β, as Dozat's paper does.

    Raises:
      ValueError: β or ψ is a number out of range.

    Reference: Dozat, 2016, ICLR workshop, "Incorporating Nesterov Momentum into Adam".
    """
    DECAY.check(decay=decay)
    BOUND.check(psi=psi)
    check_flags(scheduled_average=scheduled_average)

    def momentum_at(t):
        warm = 0.5 * jnp.power(0.96, psi * scalar(t))
        return decay * (1 - warm), complement(decay) + decay * warm  # μₜ and 1 − μₜ

    def init(params):
        return DozatMomentumState(jnp.zeros([], jnp.int32), scalar(0), moments_like(params))

    @jax.named_scope("dozat_momentum")
    def update(updates, state, params=None):
        del params
        count = increment(state.count)
        now, rest = momentum_at(count)
        after, rest_after = momentum_at(count + 1)
        weight = scalar(rest + now * state.weight)
        weight_after = rest_after + after * weight
        b, b_rest = (now, rest) if scheduled_average else (decay, complement(decay))
        mu = accumulate(lambda g, m: b * m + b_rest * g, updates, state.mu)
        direction = accumulate(
            lambda g, m: after / weight_after * m + rest / weight * g, updates, mu
        )
        return direction, DozatMomentumState(count, weight, mu)

    return optax.GradientTransformation(init, update)
