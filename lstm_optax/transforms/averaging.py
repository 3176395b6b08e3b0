"""Averages of the parameters, kept in the optimizer's state beside those that train."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, SIZE, check_transformations
from lstm_optax.transforms.dtypes import accumulate, moments_like, real_only
from lstm_optax.transforms.scalars import (
    Scalar,
    complement,
    debias_factor,
    increment,
    scalar,
)


class AverageState(NamedTuple):
    """State of an average of the parameters."""

    count: jax.Array  # int32 []
    weight: jax.Array  # of the newest parameters; 1 while they alone are the average; float []
    average: optax.Params  # the parameters' tree and shapes
    inner: optax.OptState


@real_only
def average_parameters(
    inner: optax.GradientTransformation, weight: Callable[[jax.Array], Scalar]
) -> optax.GradientTransformationExtraArgs:
    """Average the parameters as they are after each step of `inner`, whose updates pass through.

        a ← a + wₜ (θ − a),  θ the parameters with this step's updates, a = θ where wₜ = 1

    Args:
      inner: the whole optimizer.
      weight: w in [0, 1], a function of this average's own count, which is 0 at the first step, for
        which w must be 1.

    Raises:
      ValueError: `update` is called without the parameters.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return initial_average(inner, params)

    @jax.named_scope("average_parameters")
    def update(updates, state, params=None, **extra_args):
        return advance_average(inner, weight(state.count), updates, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def initial_average(inner: optax.GradientTransformation, params: optax.Params) -> AverageState:
    """Return the state before the first step."""
    zero = jnp.zeros([], jnp.int32)
    return AverageState(zero, scalar(1), moments_like(params), inner.init(params))


def advance_average(
    inner: optax.GradientTransformationExtraArgs,
    weight: Scalar,
    updates: optax.Updates,
    state: AverageState,
    params: optax.Params | None,
    extra_args: dict[str, Any],
) -> tuple[optax.Updates, AverageState]:
    """Return the updates of `inner`, and the state with the parameters after them averaged in."""
    if params is None:
        raise ValueError("params is None, but they are to be averaged: pass them to `update`")
    updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
    w = scalar(weight)
    average = accumulate(
        lambda p, a: jnp.where(w == 1, p, a + w * (p - a)),
        optax.apply_updates(params, updates),
        state.average,
    )
    return updates, AverageState(increment(state.count), w, average, inner_state)


def polyak_average(
    inner: optax.GradientTransformation, *, start: Scalar = 0
) -> optax.GradientTransformationExtraArgs:
    """Keep the mean of the parameters of all steps after the first `start`, by Polyak and Ruppert.

        a = (θₛ₊₁ + … + θₜ) / (t − s),  θₜ the parameters after step t = 1, 2, …

    `eval_params` gives a, and the parameters themselves up to step s + 1. The parameters that
    train are never replaced.

    Args:
      inner: the whole optimizer, its learning rate included.
      start: s ≥ 0.

    Raises:
      ValueError: `start` is a negative number, or `update` is called without the parameters.

    Reference: Polyak & Juditsky, 1992, doi:10.1137/0330046.
    """
    check_transformations(inner=inner)
    SIZE.check(start=start)
    return average_parameters(inner, lambda count: 1 / jnp.maximum(1.0, count + 1 - start))


def ema_average(
    inner: optax.GradientTransformation, decay: Scalar
) -> optax.GradientTransformationExtraArgs:
    """Keep an exponential average of the parameters, bias-corrected.

        a ← a + (1 − decay)/(1 − decayᵗ) (θₜ − a),  θₜ the parameters after step t = 1, 2, …

    So a is θ₁ after the first step, and θ₀, the parameters before it, never enter. `eval_params`
    gives a. The parameters that train are never replaced.

    Args:
      inner: the whole optimizer, its learning rate included.
      decay: in [0, 1); .999 remembers about a thousand steps.

    Raises:
      ValueError: decay is a number outside [0, 1), or `update` is called without the parameters.

    Reference: Kingma & Ba, 2015, arXiv:1412.6980, section 7.2.
    """
    check_transformations(inner=inner)
    DECAY.check(decay=decay)

    def weight(count):
        exact = complement(decay) / debias_factor(decay, count + 1)
        return jnp.where(count == 0, 1.0, exact)

    return average_parameters(inner, weight)
