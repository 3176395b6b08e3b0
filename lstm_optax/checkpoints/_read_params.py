"""`read_params`: the parameters of a checkpoint, read without its model and optimizer."""

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from optax.contrib import ScheduleFreeState

from lstm_optax.checkpoints.checkpoint import Checkpoints
from lstm_optax.checkpoints.checkpoint_error import CheckpointError
from lstm_optax.checkpoints.checkpoint_files import CheckpointFiles
from lstm_optax.checkpoints.orbax_io import alone, plain_path
from lstm_optax.transforms import AverageState, eval_params


class SavedParams(NamedTuple):
    """The parameters of a checkpoint."""

    step: int
    params: Any
    damaged: list[int]  # the steps of newer checkpoints that are damaged


def read_params(
    folder: str | PathLike[str],
    like: Any = None,
    *,
    prefer: int | None = None,
    average: bool = True,
) -> SavedParams:
    """Read the parameters of the newest whole checkpoint, whatever optimizer it was saved with.

    The checkpoint describes its own arrays, so neither the optimizer nor its state is needed. The
    parameters are the entry `params` of the saved state, as in `TrainState` of this library and of
    Flax; averages are searched in its `opt_state`.

    Args:
      folder: the folder of `Checkpoints`.
      like: a tree of arrays or `ShapeDtypeStruct` with the parameters' names, such as
        `nnx.state(model, nnx.Param)`; the result is a tree like it. By default the result is nested
        dictionaries and lists of NumPy arrays.
      prefer: the step of the checkpoint to try first, if it exists.
      average: return the average of the parameters if the optimizer keeps one, see `eval_params`.

    Raises:
      CheckpointError: there is no checkpoint, none is whole, or it has no `params`.
      ValueError: a leaf of `like` is not in the checkpoint, or has another shape or dtype there.
    """
    checkpoints = Checkpoints(Path(folder))
    step, _, damaged = checkpoints.newest_whole(prefer)
    target, _ = CheckpointFiles(checkpoints.folder).paths(step)
    with plain_path(target) as path:
        params = _read_arrays(path, average)
    return SavedParams(step, params if like is None else _as_tree(like, params, step), damaged)


def _read_arrays(path: Path, average: bool) -> Any:
    handler, options = ocp.PyTreeCheckpointHandler(), alone()
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        metadata: Any = checkpointer.metadata(path)
        tree = metadata.item_metadata.tree
        if not isinstance(tree, dict) or "params" not in tree:
            names = sorted(tree) if isinstance(tree, dict) else type(tree).__name__
            raise CheckpointError(f"the checkpoint {path} has no 'params', it has {names}")
        opt_state = tree.get("opt_state")
        wanted = {"params": tree["params"]}
        if average and _find_averages(opt_state):
            wanted["opt_state"] = opt_state
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        request = ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True)
        restored = checkpointer.restore(path, args=request)
    averages = _find_averages(restored.get("opt_state"))
    if not averages:
        return restored["params"]
    with jax.enable_x64(True):  # so that float64 stays float64
        averages, params = jax.tree.map(jnp.asarray, (averages, restored["params"]))
        return jax.device_get(eval_params(averages, params))


def _find_averages(node: Any) -> list[Any]:
    """Return the states with an average, rebuilt from the dictionaries that Orbax stores."""
    if isinstance(node, dict):
        if set(AverageState._fields) == set(node):
            average = _restore_masked_nodes(node["average"])
            state = AverageState(**node | {"average": average, "inner": ()})
            return [state, *_find_averages(node["inner"])]
        if {"z", "b1", "weight_sum"} <= set(node):
            fields: dict[str, Any] = {name: node.get(name) for name in ScheduleFreeState._fields}
            return [ScheduleFreeState(**fields | {"z": _restore_masked_nodes(node["z"])})]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [state for child in children for state in _find_averages(child)]


def _restore_masked_nodes(node: Any) -> Any:
    """Return the tree with `MaskedNode` in place of None, as which Orbax stores it."""
    return jax.tree.map(
        lambda x: optax.MaskedNode() if x is None else x, node, is_leaf=lambda x: x is None
    )


def _as_tree(like: Any, params: Any, step: int) -> Any:
    """Return a tree like the given one, with the saved values of the same names."""

    def value(path: tuple, x: Any) -> jax.Array:
        found, name = params, jax.tree_util.keystr(path, simple=True, separator="/")
        for key in path:
            own = next(getattr(key, a) for a in ("key", "idx", "name") if hasattr(key, a))
            if isinstance(found, dict) and str(own) in found:
                found = found[str(own)]
            elif isinstance(found, list) and isinstance(own, int) and own < len(found):
                found = found[own]
            elif own not in ("value", "raw_value"):  # a Flax variable's, depending on the version
                raise ValueError(f"the checkpoint of step {step} has no parameter {name!r}")
        if isinstance(found, dict) and len(found) == 1:  # such a variable under its other name
            (found,) = found.values()
        saved = f"{found.dtype}{found.shape}" if isinstance(found, np.ndarray) else "no array"
        if saved != f"{x.dtype}{x.shape}":
            raise ValueError(
                f"{name!r} is {saved} in the checkpoint of step {step}; expected {x.dtype}{x.shape}"
            )
        return jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(value, like)
