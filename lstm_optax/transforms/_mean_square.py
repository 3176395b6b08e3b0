"""Squared-gradient accumulation: running sizes of each gradient entry."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, SIZE, check_transformations
from lstm_optax.transforms.derivatives import root
from lstm_optax.transforms.dtypes import accumulate, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, complement


class MeanSquareState(NamedTuple):
    """State of `mean_square`."""

    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def mean_square(decay: Scalar, *, initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Estimate the mean squared gradient by an exponential moving average.

        ν ← ρ ν + (1 − ρ) g²,  gives ν

    With ν₀ = 0 and no `debias` the first normalised step is 1/√(1 − ρ): 3.2 at ρ = .9, 31.6 at
    .999. Gives the moment's dtype. ν overflows in float32 from |g| of about 1e19.

    Args:
      decay: ρ in [0, 1).
      initial: ν₀ ≥ 0; TensorFlow 1 starts at 1.

    Raises:
      ValueError: ρ or ν₀ is a number out of range.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e, "RMSprop".
    """
    DECAY.check(decay=decay)
    SIZE.check(initial=initial)
    return averaged_square(decay, initial)


def averaged_square(decay: Scalar, initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Return `mean_square` for any numbers, for a source that takes ρ = 1."""

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
    nu: optax.Updates  # likewise


@real_only
def centered_mean_square(
    decay: Scalar, *, initial: Scalar = 0.0, floor: Scalar = 0.0
) -> optax.GradientTransformation:
    """Estimate the variance of the gradient: the mean square about the running mean.

        d = g − μ;  μ ← μ + (1 − ρ) d;  ν ← ρ (ν + (1 − ρ) d²),  gives max(ν, floor · μ²)

    The same algebra as E[g²] − E[g]², but a sum of squares, so rounding can never make it
    negative. A constant gradient drives ν to 0, and with no floor a step divided by its root to
    g/√ε; with one to 1/√floor, as if the gradient had at least that relative variance.

    Args:
      decay: ρ in [0, 1).
      initial: ν₀ ≥ 0; TensorFlow 1 starts at 1.
      floor: ≥ 0, in units of the squared mean gradient.

    Raises:
      ValueError: ρ, ν₀ or the floor is a number out of range.

    Reference: Graves, 2013, arXiv:1308.0850, equations 38–40; the recurrence is West, 1979,
    doi:10.1145/359146.359153, with exponential weights.
    """
    DECAY.check(decay=decay)
    SIZE.check(initial=initial, floor=floor)
    return averaged_variance(decay, initial, floor)


def averaged_variance(
    decay: Scalar, initial: Scalar = 0.0, floor: Scalar = 0.0
) -> optax.GradientTransformation:
    """Return `centered_mean_square` for any numbers, for a source that takes ρ = 1."""

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
        size = accumulate(lambda m, n: jnp.maximum(n, jnp.square(root(floor) * m)), mu, nu)
        return size, CenteredMeanSquareState(mu, nu)

    return optax.GradientTransformation(init, update)


class SumSquareState(NamedTuple):
    """State of `sum_square`."""

    nu: optax.Updates  # the parameters' tree and shapes


@real_only
def sum_square(initial: Scalar = 0.0) -> optax.GradientTransformation:
    """Accumulate the sum of squared gradients.

        ν ← ν + g²,  gives ν

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
    """Give the largest output of a second moment so far, entry by entry.

        ν_max ← max(ν_max, inner(g)),  gives ν_max,  which starts at 0

    Around `mean_square` it is PyTorch's AMSGrad, around `debias(mean_square)` Optax's.

    Args:
      inner: an estimator of a size, which is never negative.

    Raises:
      ValueError: `inner` is no transformation.

    Reference: Reddi, Kale & Kumar, 2018, arXiv:1904.09237.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return RunningMaxState(inner.init(params), moments_like(params))

    @jax.named_scope("running_max")
    def update(updates, state, params=None, **extra_args):
        size, inner_state = inner.update(updates, state.inner, params, **extra_args)
        nu = accumulate(jnp.maximum, size, state.nu)
        return nu, RunningMaxState(inner_state, nu)

    return optax.GradientTransformationExtraArgs(init, update)
