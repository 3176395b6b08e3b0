"""The parameters that a transformation is measured on, and the one entry of them that is watched.

A specimen is a matrix, or an LSTM of one unit for a rule that accepts no other parameters. All
sizes are multiples of a size n, which is 1 for the runs and large for the bytes of a state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Specimen(NamedTuple):
    """A tree of parameters, of which one entry gets a gradient; all others get zeros."""

    shapes: Any  # the tree, a tuple for each leaf, for n = 1
    watched: tuple[str, ...] = ()  # the keys of the leaf
    note: str = ""  # what a reader of the response must know

    def struct(self, n: int, dtype: Any) -> Any:
        """Return the parameters of size n as shapes and dtypes."""

        def leaf(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(tuple(n * size for size in shape), dtype)

        return jax.tree.map(leaf, self.shapes, is_leaf=lambda node: isinstance(node, tuple))

    def full(self, value: Any) -> Any:
        """Return the parameters of size 1 with `value` in every entry."""
        return jax.tree.map(lambda s: jnp.full(s.shape, value, s.dtype), self.struct(1, "float32"))

    def gradient(self, value: Any) -> Any:
        """Return a gradient of `value` at the watched entry and of 0 elsewhere."""

        def leaf(path: tuple, zeros: jax.Array) -> jax.Array:
            at = tuple(key.key for key in path) == self.watched
            return zeros.at[(0,) * zeros.ndim].set(value) if at else zeros

        return jax.tree_util.tree_map_with_path(leaf, self.full(0.0))

    def leaf(self, tree: Any) -> Any:
        """Return the leaf of a tree like the parameters that has the watched entry."""
        for key in self.watched:
            tree = tree[key]
        (leaf,) = jax.tree.leaves(tree)
        return leaf

    def entry(self, tree: Any) -> jax.Array:
        """Return the watched entry of a tree like the parameters."""
        leaf = self.leaf(tree)
        return leaf[(0,) * leaf.ndim]


_GATES = (1, 4)
_ROWS = (4, 1)
_NOTE = (
    "Measured on an LSTM of one unit, since the rule accepts no single matrix: one entry of the "
    "input gate's kernel gets the gradient, all others get 0."
)


def _lstm(shapes: Any, *watched: str) -> Specimen:
    return Specimen(shapes, watched, _NOTE)


MATRIX = Specimen((1, 1))  # for rules that look at shapes; its entry, RMS and norm are one number
SPECIMENS = (  # the first that a rule accepts is measured; the LSTMs as each library names them
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


def accepted_specimen(tx: optax.GradientTransformation) -> Specimen:
    """Return the first specimen that `init` accepts.

    Raises:
      Exception: the error of the matrix, if `init` accepts none.
    """
    refusal = None
    for specimen in SPECIMENS:
        try:
            tx.init(specimen.full(0.0))
        except Exception as error:  # a rule may refuse in any way
            refusal = refusal or error
        else:
            return specimen
    assert refusal is not None
    raise refusal
