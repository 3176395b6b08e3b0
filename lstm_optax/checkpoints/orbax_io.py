"""Reading and writing one tree of arrays with Orbax, under any path name."""

import errno
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.sharding import SingleDeviceSharding

from lstm_optax.checkpoints.agreement import Agreement
from lstm_optax.trees import describe_leaf, is_array

HEADER = ".zarray"  # of an array, in the format that Orbax writes
PLAIN_NAME = re.compile(r"[A-Za-z0-9_./-]+")


def check_storable(tree: Any) -> None:
    """Raise ValueError unless it is a tree of arrays that Orbax can store."""
    if not jax.tree.leaves(tree) or jax.tree_util.all_leaves([tree]):
        raise ValueError("a checkpoint holds a tree of arrays, such as a dictionary with one in it")
    leaves = _leaves_by_name(tree)
    if len(leaves) < len(jax.tree.leaves(tree)):
        raise ValueError(
            "two leaves have one name, such as those of {'a.b': …} and {'a': {'b': …}}, and a "
            "checkpoint would hold only one of the two: rename a key with a dot in it"
        )
    for name, leaf in leaves.items():
        if not is_array(leaf) or 0 in np.shape(leaf):
            raise ValueError(
                f"{name} is {describe_leaf(leaf)}, which a checkpoint cannot hold; expected an "
                "array with at least one entry, or a number"
            )


def copy_to_host(tree: Any) -> Any:
    """Return a tree of NumPy arrays, which no later change or donation of the arrays reaches.

    Arrays that are shared with other processes are returned as they are.
    """
    stored = jax.tree.map(_as_stored, tree)
    for leaf in jax.tree.leaves(stored):
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()
    return jax.tree.map(lambda leaf: leaf if _is_shared(leaf) else _copy(leaf), stored)


def start_write(path: Path, tree: Any, agreement: Agreement) -> Callable[[], None]:
    """Begin to write a tree, and return the function that finishes it, in any thread.

    All processes call both. Shared arrays are copied to the host before this returns.
    """
    options = ocp.AsyncOptions(
        barrier_sync_fn=agreement if jax.process_count() > 1 else None,
        # else, when the folder cannot be created, threads that wait for it hold up the program's
        # end for 5 minutes
        create_directories_asynchronously=False,
    )
    with ExitStack() as stack:
        plain = stack.enter_context(plain_path(path))
        checkpointer = stack.enter_context(
            ocp.StandardCheckpointer(
                async_options=options, multiprocessing_options=_all_processes(agreement.key)
            )
        )
        checkpointer.save(plain, tree)
        held = stack.pop_all()

    def finish() -> None:
        with held:
            checkpointer.wait_until_finished()

    return finish


def check_written(path: Path, tree: Any) -> None:
    """Raise OSError unless the names, shapes and dtypes of a written tree can be read back."""
    if describe_stored(path) != describe_tree(tree):
        raise OSError(errno.EIO, "the arrays of the checkpoint cannot be read back", str(path))


def describe_stored(path: Path) -> dict[str, str] | None:
    """Return dtype and shape of each stored leaf by its name; None if there is none.

    This reads the header of each array but no data. It does not ask Orbax, which converts the
    descriptions of TensorStore to JSON: TensorStore 0.1.86 never frees what its `to_json` returns.
    """
    found = {}
    with plain_path(path.resolve()) as plain:
        base = {"driver": "file", "path": f"{plain}/"}
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        for key in store.list().result():
            name, _, file = key.decode().rpartition("/")
            if file == HEADER:
                header = json.loads(store[key])
                leaf = jax.ShapeDtypeStruct(header["shape"], jnp.dtype(header["dtype"]))
                found[name] = describe_leaf(leaf)
    return found or None


def describe_tree(tree: Any) -> dict[str, str]:
    """Return dtype and shape of each leaf of a tree by the name that it is stored under."""
    return {name: describe_leaf(_as_stored(leaf)) for name, leaf in _leaves_by_name(tree).items()}


def read_tree(path: Path, like: Any) -> Any:
    """Return a stored tree, with the type, dtype and devices of each leaf of `like`.

    All processes call it.
    """
    options = _all_processes(Agreement().key)
    with (
        plain_path(path) as plain,
        ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer,
    ):
        stored = checkpointer.restore(plain, jax.tree.map(_restore_target, like))
    return jax.tree.map(_as_type_of, stored, like)


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Yield the path, or a temporary link to it if the path has characters that Orbax misreads.

    Orbax reads some names as patterns ("[1]") or addresses ("gs:"), and loses arrays or fails.
    """
    if PLAIN_NAME.fullmatch(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lstm_optax-") as folder:
        if not PLAIN_NAME.fullmatch(folder):
            message = f"Orbax needs a plain name, and so does a link to it in {folder}; set TMPDIR"
            raise OSError(errno.EINVAL, message, str(path))
        link = Path(folder) / "checkpoints"
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name


def alone() -> ocp.options.MultiprocessingOptions:
    """Return Orbax's options for a process that reads without the others."""
    rank = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=rank, active_processes={rank})


def _all_processes(key: str) -> ocp.options.MultiprocessingOptions:
    """Return Orbax's options for all processes, with barriers that may run in any thread.

    Without `active_processes`, Orbax's barriers are collectives of the devices.
    """
    ranks = set(range(jax.process_count()))
    return ocp.options.MultiprocessingOptions(
        active_processes=ranks, barrier_sync_key_prefix=key.replace("/", "_")
    )


def _leaves_by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves by Orbax's names; Orbax stores a NamedTuple as a dictionary."""
    plain = ocp.tree.serialize_tree(tree, keep_empty_nodes=True)
    leaves = jax.tree_util.tree_leaves_with_path(plain)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _as_stored(leaf: Any) -> Any:
    """Return the stored form of a leaf: a NumPy array for a number, its data for a random key."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) or _is_shape(leaf) else np.asarray(leaf)


def _copy(leaf: Any) -> np.ndarray:
    return np.array(leaf).view(_OwnArray)


def _is_shared(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _restore_target(leaf: Any) -> Any:
    leaf = _as_stored(leaf)
    if isinstance(leaf, np.ndarray):
        return leaf
    sharding = leaf.sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _as_type_of(stored: Any, like: Any) -> Any:
    """Return a stored leaf as the type of `like`: a random key, an array, or a Python number."""
    if _is_key(like):
        return jax.random.wrap_key_data(stored, impl=jax.random.key_impl(like))
    if isinstance(like, np.ndarray | jax.Array) or _is_shape(like):
        return stored
    return stored[()] if isinstance(like, np.generic) else type(like)(stored.item())


class _OwnArray(np.ndarray):
    """An array that nobody else changes; Orbax would copy it once more to be safe from that."""

    def __deepcopy__(self, memo: Any) -> np.ndarray:
        return self
