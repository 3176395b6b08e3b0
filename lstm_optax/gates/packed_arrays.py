"""Layouts that keep several kinds in one array: Haiku's, and cuDNN's flat vector."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import Cell, cell_at, misfit, stacked, unclear, unstacked
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

_ORDER = ("input", "cell", "forget", "output")
_ADDED = (0.0, 0.0, 1.0, 0.0)
_NAME = re.compile(r"lstm(_\d+)?")


def haiku_parts(leaves: Mapping[tuple[str, ...], Leaf], *, told: bool) -> Iterator[GatePart]:
    """Return the parts of all LSTMs of Haiku: a `linear` with `w` and `b`, gates i, g, f, o.

    The rows of `w` are the inputs', then the hidden state's. Haiku adds 1 to the forget gate's
    pre-activation, beside what is in `b`.

    Args:
      leaves: by name.
      told: whether the user says that there is an LSTM, whatever its name.

    Raises:
      ValueError: a shape does not fit, or a module that is not named lstm may be one.
    """
    for above in dict.fromkeys(name[:-2] for name in leaves if name[-2:-1] == ("linear",)):
        names = {own: (*above, "linear", own) for own in "wb"}
        theirs = {own: leaves[name] for own, name in names.items() if name in leaves}
        if not above or not theirs:
            continue
        theirs, members = unstacked(theirs, lambda own: own == "b")
        w, b = theirs.get("w"), theirs.get("b")
        if told or _NAME.fullmatch(above[-1]):
            yield from stacked(_haiku(cell_at(above), w, b), members)
        elif w and _fits(w) and _alone(above, leaves):
            why = "has the shape that an LSTM of Haiku has, and a Linear may have"
            raise unclear(w, why, "haiku", above)


def _alone(above: tuple[str, ...], leaves: Mapping[tuple[str, ...], Leaf]) -> bool:
    """Whether a module has nothing but one Linear, as an LSTM has."""
    beside = {name[len(above)] for name in leaves if name[: len(above)] == above}
    return beside == {"linear"}


def _fits(w: Leaf) -> bool:
    match w.shape:
        case (rows, columns):
            return columns % 4 == 0 and 0 < columns // 4 < rows
    return False


def _haiku(cell: Cell, w: Leaf | None, b: Leaf | None) -> Iterator[GatePart]:
    gated = next((leaf.shape[-1] for leaf in (w, b) if leaf and leaf.shape), 0)
    hidden = gated // 4
    if w and w.shape is not None:
        if not _fits(w):
            raise misfit(w, "(inputs + hidden, 4·hidden)", cell)
        rows, inputs = w.shape[0], w.shape[0] - hidden
        for kind, start, stop in (("kernel_ih", 0, inputs), ("kernel_hh", inputs, rows)):
            index = (slice(start, stop), slice(0, gated))
            yield cell.part(w, kind, _ORDER, (stop - start, 4, hidden), axis=1, index=index)
    if b and b.shape is not None:
        if b.shape != (4 * hidden,) or not hidden:
            raise misfit(b, f"({gated},)" if w and w.shape else "(4·hidden,)", cell)
        yield cell.part(b, "bias", _ORDER, (4, hidden), added=_ADDED)


class CuDNNLayout(NamedTuple):
    """The layout of the flat vector of weights of `jax.experimental.rnn.lstm`."""

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False


def cudnn_parts(layout: CuDNNLayout, leaf: Leaf) -> Iterator[GatePart]:
    """Return the parts of the flat vector: the kernels of all layers, then the biases of all.

    Raises:
      ValueError: the vector has another length than the sizes ask for.
    """
    hidden, directions = layout.hidden_size, ("forward", "backward")[: 1 + layout.bidirectional]
    found, start = [], 0
    for kinds in (("kernel_ih", "kernel_hh"), ("bias", "bias")):
        for layer in range(layout.num_layers):
            inputs = layout.input_size if layer == 0 else hidden * len(directions)
            widths = {"kernel_ih": (inputs,), "kernel_hh": (hidden,), "bias": ()}
            for direction in directions:
                cell = Cell(leaf.name, leaf.name, layer, direction)
                for kind in kinds:
                    width = widths[kind]
                    stop = start + 4 * hidden * (width[0] if width else 1)
                    at = (slice(start, stop),)
                    shape, kernel = (4, hidden, *width), kind != "bias"
                    found.append(cell.part(leaf, kind, GATES, shape, index=at, transposed=kernel))
                    start = stop
    if leaf.shape != (start,):
        raise ValueError(f"{leaf} has shape {leaf.shape}; expected ({start},) for {layout}")
    yield from found
