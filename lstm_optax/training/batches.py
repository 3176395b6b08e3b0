"""Batches: read in order, checked, and stacked for one dispatch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lstm_optax.training.argument_checks import check_same_tree, describe_leaf, is_array

SAME_BATCHES = "all batches must have the same structure, shapes and dtypes"


class BatchReader:
    """Read batches from a function of the position, each position once.

    Args:
      batches: position → batch.
      size: the number of batches in a full dispatch.
    """

    def __init__(self, batches: Callable[[int], Any], size: int):
        self._batches, self._size = batches, size
        self._first: Any = None

    def read(self, position: int, count: int) -> Any:
        """Return `count` batches stacked along a new first axis, padded with copies of the last.

        Raises:
          ValueError: a batch has no arrays, or differs from the first one.
        """
        batches = []
        for index in range(position, position + count):
            batch = self._batches(index)
            check_batch(f"batches({index})", batch)
            self._first = batch if self._first is None else self._first
            check_same_tree(f"batches({index})", batch, self._first, SAME_BATCHES)
            batches.append(batch)
        # padding keeps the shape, and with it the compiled program, the same for every dispatch
        return stack_batches(batches + batches[-1:] * (self._size - count))


def check_batch(name: str, batch: Any) -> None:
    """Raise ValueError unless a batch is a tree of arrays."""
    leaves = jax.tree.leaves(batch)
    wrong = [describe_leaf(leaf) for leaf in leaves if not is_array(leaf)]
    if wrong or not leaves:
        found = f"a tree with {wrong[0]} in it" if wrong else f"{batch!r}, which holds no array"
        raise ValueError(f"{name} is {found}; expected a tree of arrays")


def stack_batches(batches: Sequence[Any]) -> Any:
    """Return batches stacked along a new first axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
