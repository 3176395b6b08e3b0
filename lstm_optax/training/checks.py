"""Checks of the arguments of training: functions, types, and trees that must agree."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST = 3  # differences that a message names
WIDEST = {"f": 8, "c": 16}  # bytes of the widest number that JAX has of a kind


def check_callable(name: str, value: Any, expected: str) -> None:
    """Raise ValueError unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name} is of type {type(value).__name__}; expected {expected}")


def check_kind(name: str, value: Any, kind: type, expected: str) -> None:
    """Raise ValueError unless `value` is an object of that kind."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is of type {type(value).__name__}; expected {expected}")


def check_same(what: str, found: Any, expected: Any, remedy: str) -> None:
    """Raise ValueError unless two trees agree in structure, and their leaves in shape and dtype."""
    if differing := differences(describe(found), describe(expected)):
        raise ValueError(f"{what} has {differing}: {remedy}")
    structures = jax.tree.structure(found), jax.tree.structure(expected)
    if structures[0] != structures[1]:
        raise ValueError(f"{what} has the structure {structures[0]}, expected {structures[1]}")


def describe(tree: Any) -> dict[str, str]:
    """Return the dtype and shape of each leaf by its path, such as {"['h']": "float32[2,3]"}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): describe_leaf(leaf) for path, leaf in leaves}


def describe_leaf(leaf: Any) -> str:
    """Return the dtype and shape of an array or number, as JAX writes them; else its type."""
    if not is_array(leaf):
        return type(leaf).__name__
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype}[{','.join(map(str, np.shape(leaf)))}]"


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is a number or array that JAX can have, or an array of random keys."""
    if isinstance(leaf, bool | int | float | complex):
        return np.asarray(leaf).dtype != object  # as that of an integer beyond 64 bits is
    dtype: Any = getattr(leaf, "dtype", object)
    kinds = np.number, np.bool_, jax.dtypes.prng_key
    if isinstance(dtype, np.dtype) and dtype.itemsize > WIDEST.get(dtype.kind, np.inf):
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def differences(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Return the first leaves that differ, each with both descriptions; "" if none does."""
    names = [*expected, *(name for name in found if name not in expected)]
    differing = [
        f"{found.get(name, 'nothing')} at {name or 'its root'}, "
        f"expected {expected.get(name, 'nothing')}"
        for name in names
        if found.get(name) != expected.get(name)
    ]
    more = [f"and {len(differing) - MOST} more"] if len(differing) > MOST else []
    return "; ".join(differing[:MOST] + more)
