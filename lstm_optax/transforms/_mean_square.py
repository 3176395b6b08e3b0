"""Second-moment estimators: running averages, sums and maxima of squared gradient entries."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, SIZE, check_transformations
from lstm_optax.transforms.derivatives import safe_sqrt
from lstm_optax.transforms.dtypes import accumulate, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, complement


class MeanSquareState(NamedTuple):
    """State of `mean_square`."""

    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def mean_square(decay: Scalar, *, initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Estimate the mean squared gradient by an exponential moving average.

        ν ← ρ ν + (1 − ρ) g²;  returns ν

    With ν₀ = 0 and without `debias`, the first normalised step g/√ν is 1/√(1 − ρ): 3.2 for ρ = .9,
    31.6 for .999. Returns the dtype of the moment. In float32, ν overflows for |g| above about
    1e19.

    Args:
      decay: ρ in [0, 1).
      initial: ν₀ ≥ 0; TensorFlow 1 starts at 1.

    Raises:
      ValueError: ρ or ν₀ is a number out of range.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e, "RMSprop".
    """
    DECAY.check(decay=decay)
    SIZE.check(initial=initial)
    return unchecked_mean_square(decay, initial)


def unchecked_mean_square(decay: Scalar, initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Return `mean_square` without range checks, for presets whose source allows ρ = 1."""

    def init(params):
        return MeanSquareState(moments_like(params, initial))

    @jax.named_scope("mean_square")
    def update(updates, state, params=None):
        del params
        nu = accumulate(
            lambda g, n: decay * n + complement(decay) * jnp.square(g), updates, state.nu
        )
        return nu, MeanSquareState(nu)

    return optax.GradientTransformation(init, update)


class CenteredMeanSquareState(NamedTuple):
    """State of `centered_mean_square`."""

    mu: optax.Updates  # the parameters' tree and shapes
    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def centered_mean_square(
    decay: Scalar, *, initial: Scalar = 0.0, floor: Scalar = 0.0
) -> optax.GradientTransformation:
    """Estimate the variance of the gradient: the mean square around the running mean.

        d = g − μ;  μ ← μ + (1 − ρ) d;  ν ← ρ (ν + (1 − ρ) d²);  returns max(ν, floor · μ²)

    Equal to E[g²] − E[g]² in exact arithmetic, but computed as a sum of squares, so that rounding
    cannot make it negative. For a constant gradient ν decays to 0, and a step g/√(ν + ε) grows to
    g/√ε. With a floor it grows to 1/√floor at most, as for a gradient with that relative variance.

    Args:
      decay: ρ in [0, 1).
      initial: ν₀ ≥ 0; TensorFlow 1 starts at 1.
      floor: ≥ 0, a lower bound on the variance in units of the squared mean gradient.

    Raises:
      ValueError: ρ, ν₀ or the floor is a number out of range.

    Reference: Graves, 2013, arXiv:1308.0850, equations 38–40; the recurrence is West, 1979,
    doi:10.1145/359146.359153, with exponential weights.
    """
    DECAY.check(decay=decay)
    SIZE.check(initial=initial, floor=floor)
    return unchecked_centered_mean_square(decay, initial, floor)


def unchecked_centered_mean_square(
    decay: Scalar, initial: Scalar = 0.0, floor: Scalar = 0.0
) -> optax.GradientTransformation:
    """Return `centered_mean_square` without range checks, for presets whose source allows ρ = 1."""

    def init(params):
        return CenteredMeanSquareState(moments_like(params), moments_like(params, initial))

    @jax.named_scope("centered_mean_square")
    def update(updates, state, params=None):
        del params
        weight = complement(decay)
        nu = accumulate(
            lambda g, n, m: decay * (n + weight * jnp.square(g - m)), updates, state.nu, state.mu
        )
        mu = accumulate(lambda g, m: m + weight * (g - m), updates, state.mu)
        variance = accumulate(lambda m, n: jnp.maximum(n, jnp.square(safe_sqrt(floor) * m)), mu, nu)
        return variance, CenteredMeanSquareState(mu, nu)

    return optax.GradientTransformation(init, update)


class SumSquareState(NamedTuple):
    """State of `sum_square`."""

    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def sum_square(initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Accumulate the sum of squared gradients.

        ν ← ν + g²;  returns ν

    Args:
      initial: ν₀ ≥ 0.

    Raises:
      ValueError: ν₀ is a negative number.

    Reference: Duchi, Hazan & Singer, 2011, JMLR 12, "Adagrad".
    """
    SIZE.check(initial=initial)

    def init(params):
        return SumSquareState(moments_like(params, initial))

    @jax.named_scope("sum_square")
    def update(updates, state, params=None):
        del params
        nu = accumulate(lambda g, n: n + jnp.square(g), updates, state.nu)
        return nu, SumSquareState(nu)

    return optax.GradientTransformation(init, update)


class RunningMaxState(NamedTuple):
    """State of `running_max`."""

    inner: optax.OptState
    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def running_max(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return the elementwise maximum of a second-moment estimate over all steps.

        ν_max ← max(ν_max, inner(g));  returns ν_max;  ν_max starts at 0

    `running_max(mean_square(…))` is PyTorch's AMSGrad, `running_max(debias(mean_square(…)))` is
    Optax's.

    Args:
      inner: an estimator of the second moment, whose output is never negative.

    Raises:
      ValueError: `inner` is not a gradient transformation.

    Reference: Reddi, Kale & Kumar, 2018, arXiv:1904.09237.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return RunningMaxState(inner.init(params), moments_like(params))

    @jax.named_scope("running_max")
    def update(updates, state, params=None, **extra_args):
        inner_nu, inner_state = inner.update(updates, state.inner, params, **extra_args)
        nu = accumulate(jnp.maximum, inner_nu, state.nu)
        return nu, RunningMaxState(inner_state, nu)

    return optax.GradientTransformationExtraArgs(init, update)
