"""Batches: read in order, checked, stacked for one dispatch, and sent to the devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.training.batch_stream import BatchesEnded, BatchStream
from lstm_optax.trees import check_same_tree, describe_leaf, is_array

FAILED = 2**31 - 1  # in place of the count, from a process that could not read its batches
STOPPED = FAILED - 1  # in place of the count, from a process that asks to stop
SAME_BATCHES = "all batches must have the same structure, shapes and dtypes"


class Dispatch(NamedTuple):
    """The batches of one dispatch."""

    batches: Any  # on the devices, stacked along a new first axis; None if count is 0
    count: int  # the number of them, without the padding
    detail: str = ""  # if count is 0 in some of several processes only: in which
    stopped: bool = False  # a process asked to stop


class BatchReader:
    """Read the batches of one dispatch after the other, each position once and in order.

    Args:
      batches: position → batch.
      size: the number of batches in a full dispatch.
      to_devices: stacked batches → the same on the devices.
      in_each_process: number → the numbers that all processes pass, by rank; each must call it.
    """

    def __init__(
        self,
        batches: Callable[[int], Any],
        size: int,
        to_devices: Callable[[Any], Any],
        in_each_process: Callable[[int], dict[int, int]] = lambda number: {0: number},
    ):
        self._batches, self._size, self._to_devices = batches, size, to_devices
        self._in_each_process = in_each_process
        self._first: Any = None
        self._ahead: tuple[tuple[int, int], Dispatch | Exception] | None = None

    def read(self, position: int, count: int, *, stop: bool = False) -> Dispatch:
        """Return `count` batches, padded with copies of the last; fewer if the batches end.

        All of several processes receive equally many: as many as each of them has, and none if one
        of them passes `stop`.

        Raises:
          ValueError: a batch has no arrays, or differs from the first one.
          RuntimeError: another process could not read its batches.
        """
        stopped = Dispatch(None, 0, stopped=True)
        dispatch = stopped if stop else self._take(position, count)
        own = dispatch.count if isinstance(dispatch, Dispatch) else FAILED
        counts = self._in_each_process(STOPPED if stop else own)
        if STOPPED in counts.values():
            return stopped
        if isinstance(dispatch, Exception):
            raise dispatch
        if FAILED in counts.values():
            raise RuntimeError(
                f"{_ranks_with(FAILED, counts)} could not read a batch of positions {position} to "
                f"{position + count - 1}: the reason is in the output there"
            )
        common = min(counts.values())
        if common == 0 < max(counts.values()):
            detail = f"{_ranks_with(0, counts)} has no batch of position {position}, others do"
            return Dispatch(None, 0, detail)
        return dispatch._replace(count=common)

    def read_ahead(self, position: int, count: int) -> None:
        """Read the batches of the next dispatch now; an error is raised by the next `read`.

        JAX runs a dispatch in the background, so what is read after its start costs no time until
        it ends.
        """
        self._ahead = (position, count), self._try_to_read(position, count)

    def _take(self, position: int, count: int) -> "Dispatch | Exception":
        """Return the dispatch that was read ahead, or read it now."""
        asked, ahead = self._ahead or (None, None)
        self._ahead = None
        if isinstance(self._batches, BatchStream):
            self._batches.release(position)
        if ahead is None or asked != (position, count):
            return self._try_to_read(position, count)
        return ahead

    def _try_to_read(self, position: int, count: int) -> "Dispatch | Exception":
        try:
            return self._read(position, count)
        except Exception as error:
            return error

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


def _ranks_with(number: int, numbers: dict[int, int]) -> str:
    """Return the first process that has a number, and how many more have it."""
    ranks = [rank for rank, each in numbers.items() if each == number]
    more = f" (and {len(ranks) - 1} more)" if len(ranks) > 1 else ""
    return f"process {ranks[0]}{more}"


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
