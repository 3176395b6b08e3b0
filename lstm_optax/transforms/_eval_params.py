"""The parameters to evaluate with, from the averages in an optimizer state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from lstm_optax.transforms._find_states import find_states
from lstm_optax.transforms.averaging import AverageState


def is_averaging(state: optax.OptState) -> jax.Array:
    """Return whether `eval_params` returns other parameters than the trained ones; bool []."""
    if find_states(state, ScheduleFreeState):
        return jnp.bool_(True)
    started = [jnp.any(average.weight < 1) for average in find_states(state, AverageState)]
    return jnp.any(jnp.stack(started)) if started else jnp.bool_(False)


def eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """Return the parameters to evaluate and to sample with: the averages in an optimizer state.

    These are the averages of `polyak_average`, `ema_average`, `triggered_average` and the presets,
    and x of Optax's Schedule-Free optimizers, cast to the parameters' dtypes. A leaf without an
    average, or whose average has not started, is returned unchanged.

    Args:
      state: the state of an optimizer.
      params: the trained parameters.

    Raises:
      ValueError: a leaf has more than one average, or an average has another tree.
    """
    averages = find_states(state, AverageState) + find_states(state, ScheduleFreeState)

    def select(p: Any, *candidates: Any) -> Any:  # one candidate from each average
        own = [value for value in candidates if not _is_masked(value)]
        if len(own) > 1:
            raise ValueError(
                f"a leaf of the parameters has {len(own)} averages in the optimizer, but must have "
                "at most one: remove all averages except one"
            )
        return jnp.asarray(own[0], jnp.result_type(p)) if own else p

    return jax.tree.map(select, params, *(_params_of_average(a, params) for a in averages))


def _params_of_average(state: AverageState | ScheduleFreeState, params: optax.Params) -> Any:
    """Return the parameters of one average, in the tree of `params`.

    Leaves that the average does not include, because of a mask, are MaskedNode.
    """
    if isinstance(state, AverageState):
        masked_params = _mask_like(state.average, params)
        started = jnp.asarray(state.weight < 1)  # [], or [*members] under `jax.vmap`

        def select(a: Any, p: Any) -> jax.Array:  # a, p: [*members, …]
            return jnp.where(
                jnp.expand_dims(started, tuple(range(started.ndim, jnp.ndim(a)))), a, p
            )

        own = jax.tree.map(select, state.average, masked_params)
    else:
        own = schedule_free_eval_params(state, _mask_like(state.z, params))
    # A mask may replace a whole subtree by one MaskedNode: expand it to the leaves of `params`.
    return _map_masked(
        lambda a, p: jax.tree.map(lambda _: a, p) if _is_masked(a) else a, own, params
    )


def _mask_like(average: optax.Params, params: optax.Params) -> Any:
    """Return the parameters in the tree of an average, with MaskedNode in the same places.

    Raises:
      ValueError: the two trees differ elsewhere, or a shape differs.
    """
    try:
        masked_params = _map_masked(lambda a, p: a if _is_masked(a) else p, average, params)
    except ValueError:
        masked_params = None
    if _tree_shapes(masked_params) != _tree_shapes(average):
        raise ValueError(
            "the average has another tree than the parameters: pass the parameters that the "
            "optimizer updates; for an nnx.Optimizer, pass both through nnx.as_pure; put an "
            "average around `optax.flatten` or `by_gate`, not inside it; the average has "
            f"{_tree_shapes(average)}, the parameters have {_tree_shapes(params)}"
        )
    return masked_params


def _tree_shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _map_masked(fn: Callable[[Any, Any], Any], masked: Any, params: Any) -> Any:
    """Return fn(leaf or MaskedNode of `masked`, the corresponding subtree of `params`)."""
    return jax.tree.map(fn, masked, params, is_leaf=_is_masked)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
