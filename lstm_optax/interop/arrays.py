"""Helpers of all conversions: arrays by name, and checks of names and shapes."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from lstm_optax.lstm.cell import LSTMParams


def named_arrays(tree: Any) -> dict[str, Any]:
    """Return the arrays of a tree by name, such as "dense_i/kernel".

    Raises:
      ValueError: a leaf is not an array.
    """
    found = {_path_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(tree)}
    for name, value in found.items():
        if not hasattr(value, "shape"):
            raise ValueError(f"{name or 'this'} is a {type(value).__name__}; expected arrays")
    return found


def with_arrays(tree: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of the tree in which the named arrays are replaced by `values`."""
    return jax.tree_util.tree_map_with_path(lambda path, x: values.get(_path_name(path), x), tree)


def _path_name(path: tuple) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.removesuffix("/value")  # from a Flax variable, or the box around its array


def get(found: Mapping[str, Any], name: str, prefix: str = "") -> Any:
    """Return the array of that name, or raise ValueError with the available names."""
    if name not in found:
        raise ValueError(f"{prefix}{name} is missing; there are {sorted(found) or 'no names'}")
    return found[name]


def size(found: Mapping[str, Any], name: str, axis: int) -> int:
    """Return the size of an axis of a kernel; ValueError if it is missing or not a matrix."""
    shape = np.shape(get(found, name))
    if len(shape) != 2:
        raise ValueError(f"{name} has shape {shape}; expected two axes")
    check_floats(name, found[name])
    return shape[axis]


def check_floats(name: str, value: Any) -> None:
    """Raise ValueError unless this is an array of floats, from any library."""
    if not hasattr(value, "dtype"):
        raise ValueError(f"{name} is a {type(value).__name__}; expected an array of floats")
    if "float" not in str(value.dtype):
        raise ValueError(f"{name} is {value.dtype}; expected floats, such as float32 or bfloat16")


def check_shapes(
    found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], prefix: str = ""
) -> None:
    """Raise ValueError unless all names exist, as float arrays of these shapes."""
    for name, expected in shapes.items():
        shape = np.shape(get(found, name, prefix))
        if shape != expected:
            raise ValueError(f"{prefix}{name} has shape {shape}; expected {expected}")
        check_floats(prefix + name, found[name])


def check_names(found: Mapping[str, Any], names: Iterable[str], owner: str) -> None:
    """Raise ValueError for names other than these; the message calls the object `owner`."""
    if others := sorted(set(found) - set(names)):
        raise ValueError(f"{owner} has no {', '.join(map(repr, others))}; it has {sorted(names)}")


def sizes_of(params: Any, name: str = "params") -> tuple[int, int]:
    """Return the numbers of features and hidden units.

    Raises:
      ValueError: `params` is not an LSTMParams, or its shapes do not match.
    """
    if not isinstance(params, LSTMParams):
        raise ValueError(f"{name} is a {type(params).__name__}; expected an LSTMParams")
    found = params._asdict()
    features, hidden = size(found, "kernel_ih", 0), size(found, "kernel_hh", 0)
    shapes = dict(kernel_ih=(features, 4 * hidden), kernel_hh=(hidden, 4 * hidden))
    check_shapes(found, shapes | dict(bias=(4 * hidden,)))
    return features, hidden


def check_stack(params: Any) -> None:
    """Raise ValueError unless this is a sequence of LSTMParams with matching shapes."""
    if isinstance(params, LSTMParams):
        raise ValueError(
            "got a single LSTMParams; expected a tuple, one for each layer and direction"
        )
    for i, cell in enumerate(params):
        sizes_of(cell, f"params[{i}]")
