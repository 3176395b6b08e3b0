"""Bias correction for averages that start at zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, check_transformations
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import Scalar, debias_factor, increment


class DebiasState(NamedTuple):
    """State of `debias`."""

    count: jax.Array  # int32 []
    inner: optax.OptState


@real_only
def debias(
    inner: optax.GradientTransformation, decay: Scalar
) -> optax.GradientTransformationExtraArgs:
    """Correct the bias of an exponential moving average that starts at zero.

        inner(g) / (1 − decayᵗ),  t = 1, 2, …

    The divisor is computed as −expm1(t · log1p(−(1 − decay))), which loses no digits.
    `nesterov(debias(…))` and `debias(nesterov(…))` differ: for a constant gradient g the first
    always returns g, the second (1 + decay) g at the first step.

    Args:
      inner: an exponential moving average with this decay, such as `ema(decay)`,
        `mean_square(decay)`, or `nesterov(ema(decay))`.
      decay: in [0, 1).

    Raises:
      ValueError: decay is a number outside [0, 1).

    Reference: Kingma & Ba, 2015, arXiv:1412.6980, section 3.
    """
    check_transformations(inner=inner)
    DECAY.check(decay=decay)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return DebiasState(jnp.zeros([], jnp.int32), inner.init(params))

    @jax.named_scope("debias")
    def update(updates, state, params=None, **extra_args):
        biased, inner_state = inner.update(updates, state.inner, params, **extra_args)
        count = increment(state.count)
        factor = debias_factor(decay, count)
        unbiased = jax.tree.map(lambda m: m / factor, biased)
        return cast_like(unbiased, biased), DebiasState(count, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
