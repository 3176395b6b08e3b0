"""The parameters to evaluate with, found wherever an optimizer keeps them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from lstm_optax.transforms._find_states import find_states
from lstm_optax.transforms.averaging import AverageState


def is_averaging(state: optax.OptState) -> jax.Array:
    """Return whether `eval_params` gives other parameters than those that train."""
    if find_states(state, ScheduleFreeState):
        return jnp.bool_(True)
    begun = [jnp.any(average.weight < 1) for average in find_states(state, AverageState)]
    return jnp.any(jnp.stack(begun)) if begun else jnp.bool_(False)


def eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """Return the parameters to evaluate and to sample with: the averages, wherever they are kept.

    That is the average of `polyak_average`, `ema_average`, `triggered_average` or of a preset, and
    x of Optax's Schedule-Free optimizers, in the parameters' dtypes. A leaf that is not averaged,
    or not yet, is given as it is, as are all without an average in the state.

    Args:
      state: of an optimizer.
      params: those that train.

    Raises:
      ValueError: a leaf has more than one average, or the average is of another tree.
    """
    averages = find_states(state, AverageState) + find_states(state, ScheduleFreeState)

    def chosen(p: Any, *candidates: Any) -> Any:
        own = [value for value in candidates if not _is_masked(value)]
        if len(own) > 1:
            raise ValueError(
                f"a leaf of the parameters has {len(own)} averages in the optimizer, but must have "
                "at most one: leave all but one of them out"
            )
        return jnp.asarray(own[0], jnp.result_type(p)) if own else p

    return jax.tree.map(chosen, params, *(_evaluated(average, params) for average in averages))


def _evaluated(state: AverageState | ScheduleFreeState, params: optax.Params) -> Any:
    """What one average gives, in the parameters' tree, with MaskedNode for what it does not see."""
    if isinstance(state, AverageState):
        seen, begun = _seen(state.average, params), jnp.asarray(state.weight < 1)

        def chosen(a: Any, p: Any) -> jax.Array:  # a state of `jax.vmap` has a weight for each a
            return jnp.where(jnp.expand_dims(begun, tuple(range(begun.ndim, jnp.ndim(a)))), a, p)

        own = jax.tree.map(chosen, state.average, seen)
    else:
        own = schedule_free_eval_params(state, _seen(state.z, params))
    return _map(lambda a, p: jax.tree.map(lambda _: a, p) if _is_masked(a) else a, own, params)


def _seen(kept: optax.Params, params: optax.Params) -> Any:
    """The parameters in the tree of an average, masked as it is."""
    try:
        seen = _map(lambda a, p: a if _is_masked(a) else p, kept, params)
    except ValueError:
        seen = None
    if _shapes(seen) != _shapes(kept):
        raise ValueError(
            "the average is of another tree than the parameters: give those that the optimizer "
            "updates, with nnx.Optimizer both as nnx.as_pure gives them, and put an average around "
            "`optax.flatten` or `by_gate`, not into it; the average is of "
            f"{_shapes(kept)}, the parameters are {_shapes(params)}"
        )
    return seen


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _map(fn: Callable[[Any, Any], Any], masked: Any, params: Any) -> Any:
    return jax.tree.map(fn, masked, params, is_leaf=_is_masked)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
