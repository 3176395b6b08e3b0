"""Averages of the parameters that some sources keep inside their optimizers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.transforms.dtypes import accumulate, cast_like, moments_like
from lstm_optax.transforms.scalars import Scalar, increment

__all__ = ["AverageState", "average_of", "average_parameters"]


class AverageState(NamedTuple):
    """State of `average_parameters`."""

    count: jax.Array  # int32 []
    average: optax.Params  # the parameters' tree and shapes


def average_parameters(
    weight: Callable[[jax.Array], Scalar], *, overwrite_every: Scalar | None = None
) -> optax.GradientTransformationExtraArgs:
    """Average the parameters as they are after each step; the last link of a chain.

        a ← a + wₜ (θ − a),  θ the parameters with this step's updates, a = θ where wₜ = 1

    The updates pass through, save where `overwrite_every` puts the average in place of the
    parameters.

    Args:
      weight: w in [0, 1], a function of this link's own count, which is 0 at the first step.
      overwrite_every: n ≥ 1: after every n-th step the parameters become the average.

    Raises:
      ValueError: `update` is called without the parameters.

    Reference: Polyak & Juditsky, 1992, doi:10.1137/0330046.
    """

    def init(params):
        return AverageState(jnp.zeros([], jnp.int32), moments_like(params))

    @jax.named_scope("average_parameters")
    def update(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError("params is None, but they are to be averaged: pass them to `update`")
        w, count = weight(state.count), increment(state.count)
        after = optax.apply_updates(params, updates)
        average = accumulate(
            lambda p, a: jnp.where(w == 1, p, a + w * (p - a)), after, state.average
        )
        if overwrite_every is not None:
            due = count % overwrite_every == 0
            moved = jax.tree.map(lambda u, a, p: jnp.where(due, a - p, u), updates, average, params)
            updates = cast_like(moved, updates)
        return updates, AverageState(count, average)

    return optax.GradientTransformationExtraArgs(init, update)


def average_of(state: optax.OptState) -> Any:
    """Return the averaged parameters from the state of a chain that keeps them.

    Raises:
      ValueError: the state holds no average, or more than one.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, AverageState))
    found = [leaf.average for leaf in leaves if isinstance(leaf, AverageState)]
    if len(found) != 1:
        raise ValueError(f"the state holds {len(found)} averages of parameters, but must hold one")
    return found[0]
