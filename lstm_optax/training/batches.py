"""Batches, asked for in order, checked, and stacked for one dispatch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lstm_optax.training.checks import check_same, describe_leaf, is_array

ALIKE = "all batches must have the same structure, shapes and dtypes"


class BatchReader:
    """Reads a function of the position, each position once.

    Args:
      batches: position → batch.
      size: the batches of a full dispatch.
    """

    def __init__(self, batches: Callable[[int], Any], size: int):
        self._batches, self._size = batches, size
        self._first: Any = None

    def read(self, position: int, count: int) -> Any:
        """Return `count` batches stacked along a new first axis, padded with copies of the last.

        Raises:
          ValueError: a batch without arrays, or one that differs from the first.
        """
        taken = []
        for here in range(position, position + count):
            batch = self._batches(here)
            check_arrays(f"batches({here})", batch)
            self._first = batch if self._first is None else self._first
            check_same(f"batches({here})", batch, self._first, ALIKE)
            taken.append(batch)
        return stack(taken + taken[-1:] * (self._size - count))


def check_arrays(what: str, batch: Any) -> None:
    """Raise ValueError unless a batch is a tree of arrays."""
    leaves = jax.tree.leaves(batch)
    wrong = [describe_leaf(leaf) for leaf in leaves if not is_array(leaf)]
    if wrong or not leaves:
        found = f"a tree with {wrong[0]} in it" if wrong else f"{batch!r}, which holds no array"
        raise ValueError(f"{what} is {found}; expected a tree of arrays")


def stack(batches: Sequence[Any]) -> Any:
    """Return batches stacked along a new first axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
