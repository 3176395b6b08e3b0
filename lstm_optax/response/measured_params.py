"""The parameters that a transformation is measured on, and the one entry that gets a gradient.

They are a matrix, or an LSTM of one unit for a rule that accepts no other parameters. All sizes are
multiples of a size n, which is 1 for the runs and large for the bytes of a state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class MeasuredParams(NamedTuple):
    """A tree of parameters with one measured entry; the gradients of all others are 0."""

    shapes: Any  # the tree, with a tuple for each leaf, for n = 1
    leaf_keys: tuple[str, ...] = ()  # the path of the leaf with the measured entry
    note: str = ""  # a note for the response

    def struct(self, n: int, dtype: Any) -> Any:
        """Return the parameters of size n as shapes and dtypes."""

        def leaf(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(tuple(n * size for size in shape), dtype)

        return jax.tree.map(leaf, self.shapes, is_leaf=lambda node: isinstance(node, tuple))

    def full(self, value: Any) -> Any:
        """Return the parameters of size 1 with `value` in every entry."""
        return jax.tree.map(lambda s: jnp.full(s.shape, value, s.dtype), self.struct(1, "float32"))

    def gradient(self, value: Any) -> Any:
        """Return a gradient of `value` at the measured entry and of 0 elsewhere."""

        def leaf(path: tuple, zeros: jax.Array) -> jax.Array:
            measured = tuple(key.key for key in path) == self.leaf_keys
            return zeros.at[(0,) * zeros.ndim].set(value) if measured else zeros

        return jax.tree_util.tree_map_with_path(leaf, self.full(0.0))

    def leaf(self, tree: Any) -> Any:
        """Return the leaf with the measured entry of a tree like the parameters."""
        for key in self.leaf_keys:
            tree = tree[key]
        (leaf,) = jax.tree.leaves(tree)
        return leaf

    def entry(self, tree: Any) -> jax.Array:
        """Return the measured entry of a tree like the parameters."""
        leaf = self.leaf(tree)
        return leaf[(0,) * leaf.ndim]


_GATES = (1, 4)
_ROWS = (4, 1)
_NOTE = (
    "Measured on an LSTM of one unit, since the optimizer does not accept a single matrix: one "
    "entry of the input gate's kernel gets the gradient, all others get 0."
)


def _lstm(shapes: Any, *leaf_keys: str) -> MeasuredParams:
    return MeasuredParams(shapes, leaf_keys, _NOTE)


# a matrix, for rules that depend on shapes; its entry, RMS and norm are the same number
MATRIX = MeasuredParams((1, 1))
CANDIDATES = (  # the first that a rule accepts is used; an LSTM in the names of each library
    MATRIX,
    _lstm({"kernel_ih": _GATES, "kernel_hh": _GATES, "bias": (4,)}, "kernel_hh"),
    _lstm({"kernel": _GATES, "recurrent_kernel": _GATES, "bias": (4,)}, "recurrent_kernel"),
    _lstm({"weight_ih_l0": _ROWS, "weight_hh_l0": _ROWS, "bias_ih_l0": (4,)}, "weight_hh_l0"),
    _lstm({"weight_ih": _ROWS, "weight_hh": _ROWS, "bias": (4,)}, "weight_hh"),
    _lstm(
        {"dense_i": {"kernel": _GATES}, "dense_h": {"kernel": _GATES, "bias": (4,)}},
        "dense_h",
        "kernel",
    ),
    _lstm({"lstm/linear": {"w": (2, 4), "b": (4,)}}, "lstm/linear", "w"),
)


def accepted_params(tx: optax.GradientTransformation) -> MeasuredParams:
    """Return the first candidate that `init` accepts.

    Raises:
      Exception: the error for the matrix, if `init` accepts no candidate.
    """
    first_error = None
    for params in CANDIDATES:
        try:
            tx.init(params.full(0.0))
        except Exception as error:  # a rule may raise anything
            first_error = first_error or error
        else:
            return params
    assert first_error is not None
    raise first_error
