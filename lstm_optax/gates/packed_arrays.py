"""Layouts with several kinds of parameters in one array: Haiku, and cuDNN's flat vector."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import (
    CellPath,
    ambiguous_error,
    cell_at,
    parts_of_members,
    shape_error,
    unstack_ensemble,
)
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

_HAIKU_ORDER = ("input", "cell", "forget", "output")
_HAIKU_ADDED = (0.0, 0.0, 1.0, 0.0)
_HAIKU_NAME = re.compile(r"lstm(_\d+)?")


def haiku_parts(leaves: Mapping[tuple[str, ...], Leaf], *, explicit: bool) -> Iterator[GatePart]:
    """Yield the parts of all LSTMs in Haiku's layout.

    An LSTM has a module `linear` with `w` [inputs + hidden, 4·hidden] and `b` [4·hidden], with the
    gates in the order i, g, f, o. Haiku adds 1 to the pre-activation of the forget gate, in
    addition to `b`.

    Args:
      leaves: by name.
      explicit: whether the user passed this layout for this place, so that any module name is
        accepted.

    Raises:
      ValueError: a shape is wrong, or a module that is not named lstm may be an LSTM.
    """
    for prefix in dict.fromkeys(name[:-2] for name in leaves if name[-2:-1] == ("linear",)):
        names = {own: (*prefix, "linear", own) for own in "wb"}
        own_leaves = {own: leaves[name] for own, name in names.items() if name in leaves}
        if not prefix or not own_leaves:
            continue
        own_leaves, members = unstack_ensemble(own_leaves, lambda own: own == "b")
        w, b = own_leaves.get("w"), own_leaves.get("b")
        if explicit or _HAIKU_NAME.fullmatch(prefix[-1]):
            yield from parts_of_members(_haiku_cell_parts(cell_at(prefix), w, b), members)
        elif w and _is_haiku_kernel(w) and _has_only_linear(prefix, leaves):
            why = "has a shape that an LSTM and a Linear of Haiku can have"
            raise ambiguous_error(w, why, "haiku", prefix)


def _has_only_linear(prefix: tuple[str, ...], leaves: Mapping[tuple[str, ...], Leaf]) -> bool:
    """Return whether a module contains one Linear and nothing else, as an LSTM does."""
    children = {name[len(prefix)] for name in leaves if name[: len(prefix)] == prefix}
    return children == {"linear"}


def _is_haiku_kernel(w: Leaf) -> bool:
    """Return whether the shape is (inputs + hidden, 4·hidden) with inputs and hidden above 0."""
    match w.shape:
        case (rows, columns):
            return columns % 4 == 0 and 0 < columns // 4 < rows
    return False


def _haiku_cell_parts(cell: CellPath, w: Leaf | None, b: Leaf | None) -> Iterator[GatePart]:
    gated = next((leaf.shape[-1] for leaf in (w, b) if leaf and leaf.shape), 0)  # 4·hidden
    hidden = gated // 4
    if w and w.shape is not None:
        if not _is_haiku_kernel(w):
            raise shape_error(w, "(inputs + hidden, 4·hidden)", cell)
        rows, inputs = w.shape[0], w.shape[0] - hidden
        for kind, start, stop in (("kernel_ih", 0, inputs), ("kernel_hh", inputs, rows)):
            index = (slice(start, stop), slice(0, gated))
            yield cell.part(w, kind, _HAIKU_ORDER, (stop - start, 4, hidden), axis=1, index=index)
    if b and b.shape is not None:
        if b.shape != (4 * hidden,) or not hidden:
            raise shape_error(b, f"({gated},)" if w and w.shape else "(4·hidden,)", cell)
        yield cell.part(b, "bias", _HAIKU_ORDER, (4, hidden), added=_HAIKU_ADDED)


class CuDNNLayout(NamedTuple):
    """The sizes that define the flat weight vector of `jax.experimental.rnn.lstm`."""

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False


def cudnn_parts(layout: CuDNNLayout, leaf: Leaf) -> Iterator[GatePart]:
    """Yield the parts of cuDNN's flat vector.

    The vector holds the kernels of all layers, then the biases of all layers: for each layer and
    direction `kernel_ih` [4, hidden, inputs] and `kernel_hh` [4, hidden, hidden], or two biases
    [4, hidden].

    Raises:
      ValueError: the length of the vector does not match the sizes.
    """
    hidden, directions = layout.hidden_size, ("forward", "backward")[: 1 + layout.bidirectional]
    parts, start = [], 0
    for kinds in (("kernel_ih", "kernel_hh"), ("bias", "bias")):
        for layer in range(layout.num_layers):
            inputs = layout.input_size if layer == 0 else hidden * len(directions)
            widths = {"kernel_ih": (inputs,), "kernel_hh": (hidden,), "bias": ()}
            for direction in directions:
                cell = CellPath(leaf.name, leaf.name, layer, direction)
                for kind in kinds:
                    shape = (4, hidden, *widths[kind])
                    stop = start + math.prod(shape)
                    index, is_kernel = (slice(start, stop),), kind != "bias"
                    parts.append(
                        cell.part(leaf, kind, GATES, shape, index=index, transposed=is_kernel)
                    )
                    start = stop
    if leaf.shape != (start,):
        raise ValueError(f"{leaf} has shape {leaf.shape}; expected ({start},) for {layout}")
    yield from parts
