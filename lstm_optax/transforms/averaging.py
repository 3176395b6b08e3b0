"""Averages of the parameters, stored in the optimizer state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import DECAY, SIZE, check_transformations
from lstm_optax.transforms.dtypes import accumulate, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, complement, debias_factor, increment, scalar


class AverageState(NamedTuple):
    """State of an average of the parameters."""

    count: jax.Array  # int32 []
    weight: jax.Array  # float []; of the newest parameters; 1 if the average equals them
    average: optax.Params  # the parameters' tree and shapes
    inner: optax.OptState


@real_only
def average_parameters(
    inner: optax.GradientTransformation, weight: Callable[[jax.Array], Scalar]
) -> optax.GradientTransformationExtraArgs:
    """Average the parameters after each step of `inner`, and return its updates unchanged.

        a ← a + wₜ (θ − a),  θ the parameters after this step,  a = θ if wₜ = 1

    Args:
      inner: the whole optimizer.
      weight: w in [0, 1], a function of this average's own step count. The count is 0 at the first
        step, where w must be 1.

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
    """Return the state of an average before the first step."""
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
    """Return the updates of `inner`, and the state that includes the new parameters in the average.

    Raises:
      ValueError: the parameters are None.
    """
    if params is None:
        raise ValueError("params is None, but the average needs them: pass them to `update`")
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
    """Keep the mean of the parameters over all steps after step `start` (Polyak–Ruppert averaging).

        a = (θₛ₊₁ + … + θₜ) / (t − s),  θₜ the parameters after step t = 1, 2, …

    `eval_params` returns a, or up to step s + 1 the parameters. The trained parameters are not
    replaced.

    Args:
      inner: the whole optimizer, including the learning rate.
      start: s ≥ 0, the number of steps to exclude.

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
    """Keep a bias-corrected exponential moving average of the parameters.

        a ← a + (1 − decay)/(1 − decayᵗ) (θₜ − a),  θₜ the parameters after step t = 1, 2, …

    After the first step a is θ₁; the initial parameters θ₀ are not part of the average.
    `eval_params` returns a. The trained parameters are not replaced.

    Args:
      inner: the whole optimizer, including the learning rate.
      decay: in [0, 1); .999 averages over about the last 1,000 steps.

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
