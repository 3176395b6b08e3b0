"""The parameters of a checkpoint, read without knowing what trained them."""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from optax.contrib import ScheduleFreeState

from lstm_optax.training.checkpoint import CheckpointError, Checkpoints
from lstm_optax.training.stored import plain_path
from lstm_optax.transforms import AverageState, eval_params


class SavedParams(NamedTuple):
    """Parameters of a checkpoint."""

    step: int
    params: Any
    damaged: list[int]  # the steps of newer checkpoints that are not whole


def read_params(
    folder: str | PathLike[str],
    like: Any = None,
    *,
    prefer: int | None = None,
    average: bool = True,
) -> SavedParams:
    """Read the parameters of the newest whole checkpoint, whatever optimizer it was saved with.

    The checkpoint's own description says which arrays there are, so that neither the optimizer nor
    its state is needed. Parameters are what the saved state has by the name `params`, as
    `TrainState` of this library and of Flax do, and averages are looked for in its `opt_state`.

    Args:
      folder: of `Checkpoints`.
      like: a tree of arrays or `ShapeDtypeStruct` with the parameters' names, such as
        `nnx.state(model, nnx.Param)`; the result is a tree like it. By default the result is nested
        dictionaries and lists of NumPy arrays.
      prefer: the step of the checkpoint to try first, if it is there.
      average: return the average of the parameters where the optimizer kept one, see `eval_params`.

    Raises:
      CheckpointError: there is no checkpoint, none is whole, or it holds no `params`.
      ValueError: `like` has a leaf that the checkpoint does not have, or with another shape or
        dtype.
    """
    checkpoints = Checkpoints(Path(folder))
    step, _, damaged = checkpoints.newest_whole(prefer)
    with plain_path(checkpoints.folder / str(step)) as path:
        params = _read(path, average)
    return SavedParams(step, params if like is None else _as(like, params, step), damaged)


def _read(path: Path, average: bool) -> Any:
    with ocp.PyTreeCheckpointer() as checkpointer:
        described: Any = checkpointer.metadata(path)
        tree = described.item_metadata.tree
        if not isinstance(tree, dict) or "params" not in tree:
            names = sorted(tree) if isinstance(tree, dict) else type(tree).__name__
            raise CheckpointError(f"the checkpoint {path} has no 'params', it has {names}")
        kept = tree.get("opt_state")
        wanted = {"params": tree["params"]}
        if average and _averages(kept):
            wanted["opt_state"] = kept
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        request = ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True)
        found = checkpointer.restore(path, args=request)
    averages = _averages(found.get("opt_state"))
    if not averages:
        return found["params"]
    with jax.enable_x64(True):  # float64 stays float64
        averages, params = jax.tree.map(jnp.asarray, (averages, found["params"]))
        return jax.device_get(eval_params(averages, params))


def _averages(node: Any) -> list[Any]:
    """The states with an average in a tree whose named tuples became dictionaries."""
    if isinstance(node, dict):
        if set(AverageState._fields) == set(node):
            average = AverageState(**node | {"average": _masked(node["average"]), "inner": ()})
            return [average, *_averages(node["inner"])]
        if {"z", "b1", "weight_sum"} <= set(node):
            fields: dict[str, Any] = {name: node.get(name) for name in ScheduleFreeState._fields}
            return [ScheduleFreeState(**fields | {"z": _masked(node["z"])})]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [state for child in children for state in _averages(child)]


def _masked(node: Any) -> Any:
    """The tree with `MaskedNode` again where nothing was saved of it."""
    return jax.tree.map(
        lambda x: optax.MaskedNode() if x is None else x, node, is_leaf=lambda x: x is None
    )


def _as(like: Any, params: Any, step: int) -> Any:
    """A tree like the given one, with the values of the same names."""

    def value(path: tuple, x: Any) -> jax.Array:
        found, name = params, jax.tree_util.keystr(path, simple=True, separator="/")
        for key in path:
            own = next(getattr(key, a) for a in ("key", "idx", "name") if hasattr(key, a))
            if isinstance(found, dict) and str(own) in found:
                found = found[str(own)]
            elif isinstance(found, list) and isinstance(own, int) and own < len(found):
                found = found[own]
            elif own not in ("value", "raw_value"):  # of a variable of Flax, as versions name it
                raise ValueError(f"the checkpoint of step {step} has no parameter {name!r}")
        if isinstance(found, dict) and len(found) == 1:  # the same, named otherwise there
            (found,) = found.values()
        saved = f"{found.dtype}{found.shape}" if isinstance(found, np.ndarray) else "no array"
        if saved != f"{x.dtype}{x.shape}":
            raise ValueError(
                f"{name!r} is {saved} in the checkpoint of step {step}; expected {x.dtype}{x.shape}"
            )
        return jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(value, like)
