"""Trees of arrays: the dtype and shape of each leaf in words, and whether two trees agree."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_DIFFERENCES = 3  # named in one message
MAX_ITEMSIZE = {"f": 8, "c": 16}  # bytes of the widest dtype that JAX has, by NumPy kind


def check_same_tree(name: str, found: Any, expected: Any, remedy: str) -> None:
    """Raise ValueError unless two trees agree in structure, and their leaves in shape and dtype."""
    if text := describe_differences(describe_leaves(found), describe_leaves(expected)):
        raise ValueError(f"{name} has {text}: {remedy}")
    structures = jax.tree.structure(found), jax.tree.structure(expected)
    if structures[0] != structures[1]:
        raise ValueError(f"{name} has the structure {structures[0]}, expected {structures[1]}")


def describe_leaves(tree: Any) -> dict[str, str]:
    """Return the dtype and shape of each leaf by its path, such as {"['h']": "float32[2,3]"}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): describe_leaf(leaf) for path, leaf in leaves}


def describe_leaf(leaf: Any) -> str:
    """Return the dtype and shape of an array or number in JAX's notation; otherwise the type."""
    if not is_array(leaf):
        return type(leaf).__name__
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is a number or array that JAX supports, or an array of random keys."""
    if isinstance(leaf, bool | int | float | complex):
        return np.asarray(leaf).dtype != object  # integers beyond 64 bits become objects
    dtype: Any = getattr(leaf, "dtype", object)
    kinds = np.number, np.bool_, jax.dtypes.prng_key
    if isinstance(dtype, np.dtype) and dtype.itemsize > MAX_ITEMSIZE.get(dtype.kind, np.inf):
        return False  # such as np.longdouble
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def describe_differences(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Return the first leaves that differ, each with both descriptions; "" if none does."""
    names = [*expected, *(name for name in found if name not in expected)]
    differing = [
        f"{found.get(name, 'nothing')} at {name or 'its root'}, "
        f"expected {expected.get(name, 'nothing')}"
        for name in names
        if found.get(name) != expected.get(name)
    ]
    rest = len(differing) - MAX_DIFFERENCES
    return "; ".join(differing[:MAX_DIFFERENCES] + ([f"and {rest} more"] if rest > 0 else []))
