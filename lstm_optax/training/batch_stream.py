"""Sequences and iterables of batches, read by position."""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.checks import check_integer

EXPECTED = "a function position → batch, a sequence of batches, or an iterable of batches"
SMALLEST_STATE = 2**14  # bytes: a checkpoint is restored into arrays of the same shapes


class BatchesEnded(LookupError):
    """An iterable has no further batch."""


class BatchStream:
    """An iterable of batches that is read by position, and whose place a checkpoint can hold.

    The place is that of an iterator with `get_state` and `set_state`, as those of Grain: bytes, or
    a value that JSON can hold. Any other iterable is read as well, but cannot be restored.

    At its end an iterable is iterated again; an iterator that can be read only once ends the
    training. Each batch is copied to NumPy arrays, so the iterable may reuse its buffers.

    Args:
      batches: an iterable of batches, such as a Grain dataset or data loader; in one of several
        processes, of the batches of this process.
      position: the position of its first batch.

    Raises:
      ValueError: not an iterable, or a position below 0.

    Reference: Grain, https://google-grain.readthedocs.io.
    """

    def __init__(self, batches: Iterable[Any], *, position: int = 0):
        if isinstance(batches, Mapping | str | bytes) or not hasattr(batches, "__iter__"):
            raise ValueError(f"batches is of type {type(batches).__name__}; expected {EXPECTED}")
        self._batches: Iterable[Any] = batches
        self._iterator: Any = iter(batches)
        self._next: int = check_integer("position", position, 0)  # the position of its next batch
        self._moved = False  # whether a batch was read since the start or the restoration
        self._kept: dict[int, _KeptBatch] = {}

    def __call__(self, position: int) -> Any:
        """Return the batch of a position; batches before it that were not read yet are dropped.

        Raises:
          BatchesEnded: there is no further batch.
          ValueError: the iterable cannot be moved to the position, or is empty.
        """
        if position not in self._kept:
            if position < self._next or (position > self._next and not self._moved):
                raise ValueError(
                    f"training is at position {position}, and the batches are at {self._next}: "
                    "restore their state from the checkpoint, or, if their next batch is that of "
                    f"position {position}, use BatchStream(batches, position={position})"
                )
            for _ in range(position - self._next):
                self._read()
            self._kept[position] = self._read()
        return self._kept[position].batch

    @property
    def can_restore(self) -> bool:
        """Whether the iterator can tell its place and be moved to it."""
        return hasattr(self._iterator, "get_state") and hasattr(self._iterator, "set_state")

    def release(self, position: int) -> None:
        """Drop the batches and places before a position."""
        self._kept = {p: kept for p, kept in self._kept.items() if p >= position}

    def state(self, position: Any) -> np.ndarray:
        """Return what a checkpoint stores: the place before the batch of a position.

        Batches that were read ahead of the training are therefore not counted as read.

        Args:
          position: `position` of the `TrainState` that the same checkpoint holds.

        Returns:
          uint8 [n], where n is a power of two and at least 16,384.

        Raises:
          ValueError: the position is not in the last dispatch, or the iterator's state is neither
            bytes nor a value that JSON can hold.
        """
        position = int(position)
        if position in self._kept:
            place = self._kept[position].place
        elif position == self._next:
            place = self._read_place()
        else:
            raise ValueError(
                f"the place of position {position} is not known: the batches are at {self._next}, "
                "and only the places of the last dispatch are kept"
            )
        text = json.dumps({"position": position} | json.loads(place)).encode()
        size = max(SMALLEST_STATE, 1 << (len(text) - 1).bit_length())
        return np.frombuffer(text.ljust(size), np.uint8)

    def restore(self, saved: Any) -> None:
        """Move the iterable to a place that `state` returned.

        Raises:
          ValueError: not such a place, or the iterator cannot be moved.
        """
        try:
            place = json.loads(bytes(np.asarray(saved, np.uint8)))
            position = check_integer("position", place["position"], 0)
        except (ValueError, TypeError, LookupError):
            raise ValueError("saved is not what BatchStream.state returned") from None
        if len(place) == 1 or not self.can_restore:
            raise ValueError(
                f"{type(self._batches).__name__} cannot be moved to position {position}, which "
                "needs an iterator with get_state and set_state: use "
                f"BatchStream(batches, position={position}) with batches that begin there"
            )
        state = place["bytes"].encode("latin-1") if "bytes" in place else place["json"]
        self._iterator.set_state(state)
        self._next, self._moved, self._kept = position, False, {}

    def _read(self) -> "_KeptBatch":
        place = self._read_place()
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._iterator = iter(self._batches)
            try:
                batch = next(self._iterator)
            except StopIteration:
                if self._next == 0:
                    message = "batches is empty, or an iterator that was read to its end"
                    raise ValueError(message) from None
                raise BatchesEnded(f"there is no batch of position {self._next}") from None
        self._next, self._moved = self._next + 1, True
        return _KeptBatch(copy_to_numpy(batch), place)

    def _read_place(self) -> str:
        """Return the iterator's place as the text of a JSON object; an empty one if it has none."""
        if not self.can_restore:
            return "{}"
        state = self._iterator.get_state()
        if isinstance(state, bytes):
            return json.dumps({"bytes": state.decode("latin-1")})
        try:
            return json.dumps({"json": state})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(self._iterator).__name__}.get_state returns what a checkpoint cannot "
                f"hold: {error}; expected bytes, or a value that JSON can hold"
            ) from None


class _KeptBatch(NamedTuple):
    batch: Any
    place: str  # before the batch was read


def batch_function(batches: Any) -> Callable[[int], Any]:
    """Return the function position → batch of a function, a sequence or an iterable.

    Raises:
      ValueError: none of the three, or an empty sequence.
    """
    if not callable(batches) and hasattr(batches, "__getitem__") and hasattr(batches, "__len__"):
        if not isinstance(batches, Mapping):
            return _by_position(batches)
    stream = batches if callable(batches) else BatchStream(batches)
    if isinstance(stream, BatchStream):
        _warn_of_lost_place(batches, stream)
    return stream


def _by_position(batches: Any) -> Callable[[int], Any]:
    """Return the function position → batch of a sequence, which begins again at its end."""
    count = len(batches)
    if count == 0:
        raise ValueError("batches is empty; expected at least one batch")
    if hasattr(batches, "to_iter_dataset"):  # a MapDataset of Grain: each epoch has its own order
        return lambda position: copy_to_numpy(batches[position])
    return lambda position: copy_to_numpy(batches[position % count])


def _warn_of_lost_place(batches: Any, stream: BatchStream) -> None:
    """Warn if a run cannot be resumed in the batches."""
    if not stream.can_restore:
        text = (
            "batches cannot tell its position, so a run that is interrupted cannot be resumed: use "
            "a function position → batch, a sequence of batches, or an iterable whose iterator has "
            "get_state and set_state, such as a Grain dataset"
        )
    elif batches is not stream:
        text = (
            "the position in batches is not saved: pass BatchStream(batches), and save its "
            "state(position) in each checkpoint"
        )
    else:
        return
    warnings.warn(text, stacklevel=4)  # of the caller of `fit`


def copy_to_numpy(batch: Any) -> Any:
    """Return a batch whose arrays, of NumPy, PyTorch or TensorFlow, are new NumPy arrays."""

    def copy(leaf: Any) -> Any:
        foreign = hasattr(leaf, "__array__") and not isinstance(leaf, jax.Array)
        return np.array(np.asarray(leaf)) if foreign else leaf  # some ignore a request to copy

    return jax.tree.map(copy, batch)
