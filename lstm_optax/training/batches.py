"""Batches: read in order, checked, stacked for one dispatch, and sent to the devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.training.argument_checks import check_same_tree, describe_leaf, is_array
from lstm_optax.training.batch_stream import BatchesEnded, BatchStream

SAME_BATCHES = "all batches must have the same structure, shapes and dtypes"


class Dispatch(NamedTuple):
    """The batches of one dispatch."""

    batches: Any  # on the devices, stacked along a new first axis; None if count is 0
    count: int  # the number of them, without the padding


class BatchReader:
    """Read the batches of one dispatch after the other, each position once and in order.

    Args:
      batches: position → batch.
      size: the number of batches in a full dispatch.
      to_devices: stacked batches → the same on the devices.
    """

    def __init__(self, batches: Callable[[int], Any], size: int, to_devices: Callable[[Any], Any]):
        self._batches, self._size, self._to_devices = batches, size, to_devices
        self._first: Any = None
        self._ahead: tuple[tuple[int, int], Dispatch | Exception] | None = None

    def read(self, position: int, count: int) -> Dispatch:
        """Return `count` batches, padded with copies of the last; fewer if the batches end.

        Raises:
          ValueError: a batch has no arrays, or differs from the first one.
        """
        asked, ahead = self._ahead or (None, None)
        self._ahead = None
        if isinstance(self._batches, BatchStream):
            self._batches.release(position)
        if ahead is None or asked != (position, count):
            return self._read(position, count)
        if isinstance(ahead, Exception):
            raise ahead
        return ahead

    def read_ahead(self, position: int, count: int) -> None:
        """Read the batches of the next dispatch now; an error is raised by the next `read`.

        JAX runs a dispatch in the background, so what is read after its start costs no time until
        it ends.
        """
        try:
            dispatch = self._read(position, count)
        except Exception as error:
            dispatch = error
        self._ahead = (position, count), dispatch

    def _read(self, position: int, count: int) -> Dispatch:
        batches = []
        for index in range(position, position + count):
            try:
                batch = self._batches(index)
            except BatchesEnded:
                break
            check_batch(f"batches({index})", batch)
            self._first = batch if self._first is None else self._first
            check_same_tree(f"batches({index})", batch, self._first, SAME_BATCHES)
            batches.append(batch)
        if not batches:
            return Dispatch(None, 0)
        # padding keeps the shape, and with it the compiled program, the same for every dispatch
        padded = batches + batches[-1:] * (self._size - len(batches))
        return Dispatch(self._to_devices(stack_batches(padded)), len(batches))


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
