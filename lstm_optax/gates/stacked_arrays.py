"""Layouts with the four gates side by side in one array for each kind, in the order i, f, g, o."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import Cell, cell_at, leave_out, misfit, stacked, unclear, unstacked
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

OTHER_CELLS = (1, 2, 3)  # blocks in the recurrent kernel of a simple RNN, a minimal unit, a GRU


class Fused(NamedTuple):
    """What a library calls the parameters of a cell."""

    kernel_ih: str
    kernel_hh: str
    biases: tuple[str, ...]
    rows: bool = False  # kernels are [4·hidden, inputs]; else [inputs, 4·hidden]
    suffix: str = ""  # the pattern of what follows each name
    telling: tuple[str, ...] = ("kernel_ih", "kernel_hh")  # the names that other modules have not
    only_lstm: bool = False  # no other recurrent cell has these names


FUSED = {
    "lstm_optax": Fused("kernel_ih", "kernel_hh", ("bias",), only_lstm=True),
    "flax": Fused("dense_i/kernel", "dense_h/kernel", ("dense_h/bias",)),
    "keras": Fused("kernel", "recurrent_kernel", ("bias",), telling=("kernel_hh",)),
    "equinox": Fused("weight_ih", "weight_hh", ("bias", "bias_ih", "bias_hh"), rows=True),
    "torch": Fused(
        "weight_ih",
        "weight_hh",
        ("bias_ih", "bias_hh"),
        rows=True,
        suffix=r"_l(?P<layer>\d+)(?P<reverse>_reverse)?",
    ),
}


def fused_parts(
    layout: str, leaves: Mapping[tuple[str, ...], Leaf], *, told: bool
) -> Iterator[GatePart]:
    """Return the parts of all LSTMs of a layout.

    Raises:
      ValueError: a shape does not fit, or the shapes that are there do not tell.
    """
    names = FUSED[layout]
    for cell, theirs in _cells(names, leaves).items():
        theirs, members = unstacked(theirs, names.biases.__contains__)
        hidden = _hidden(layout, cell, theirs, told)
        if hidden is not None:
            yield from stacked(_cut(names, cell, theirs, hidden), members)


def _cells(names: Fused, leaves: Mapping[tuple[str, ...], Leaf]) -> dict[Cell, dict[str, Leaf]]:
    """The cells whose names fit, with their leaves by the layout's names."""
    telling = "|".join(getattr(names, kind) for kind in names.telling)
    pattern = re.compile(rf"(?:(?P<above>.*)/)?(?:{telling})(?P<suffix>{names.suffix})")
    cells: dict[Cell, dict[str, Leaf]] = {}
    for match in filter(None, (pattern.fullmatch("/".join(name)) for name in leaves)):
        above = tuple(match["above"].split("/")) if match["above"] else ()
        cell = cell_at(above)
        if names.suffix:
            direction = "backward" if match["reverse"] else "forward"
            cell = Cell(above, above, int(match["layer"]), direction)
        own = {
            name: (*above, *f"{name}{match['suffix']}".split("/"))
            for name in (names.kernel_ih, names.kernel_hh, *names.biases, "weight_hr")
        }
        cells[cell] = {name: leaves[full] for name, full in own.items() if full in leaves}
        if "weight_hr" in cells[cell]:
            raise ValueError(
                f"{cells[cell]['weight_hr']} is a projection (proj_size > 0), which gate maps do "
                f"not know; {leave_out(above)}"
            )
    return cells


def _hidden(layout: str, cell: Cell, theirs: Mapping[str, Leaf], told: bool) -> int | None:
    """The hidden size, None where this is another cell than an LSTM."""
    names = FUSED[layout]
    recurrent = theirs.get(names.kernel_hh)
    if recurrent is not None and recurrent.shape is not None:
        if len(recurrent.shape) == 2:
            gated, hidden = recurrent.shape if names.rows else recurrent.shape[::-1]
            if gated == 4 * hidden > 0:
                return hidden
            if not told and gated in [blocks * hidden for blocks in OTHER_CELLS]:
                return None
        raise misfit(recurrent, "(4·hidden, hidden)" if names.rows else "(hidden, 4·hidden)", cell)
    there = [leaf for leaf in theirs.values() if leaf.shape is not None]
    if not there:
        return None
    if not (told or names.only_lstm):
        why = "may be an LSTM's, but the recurrent kernel that would tell is not in the tree"
        raise unclear(there[0], why, layout, cell.above)
    size = (there[0].shape or (0,))[0 if names.rows else -1]
    if size % 4 or not size:
        raise misfit(there[0], "a multiple of 4 gates", cell)
    return size // 4


def _cut(names: Fused, cell: Cell, theirs: Mapping[str, Leaf], hidden: int) -> Iterator[GatePart]:
    kinds = {names.kernel_ih: "kernel_ih", names.kernel_hh: "kernel_hh"}
    for name, leaf in theirs.items():
        kind, gated = kinds.get(name, "bias"), 4 * hidden
        match leaf.shape:
            case None:
                continue
            case (size,) if kind == "bias" and size == gated:
                yield cell.part(leaf, kind, GATES, (4, hidden))
            case (size, inputs) if kind != "bias" and names.rows and size == gated:
                yield cell.part(leaf, kind, GATES, (4, hidden, inputs), transposed=True)
            case (inputs, size) if kind != "bias" and not names.rows and size == gated:
                yield cell.part(leaf, kind, GATES, (inputs, 4, hidden), axis=1)
            case _:
                kernel = f"({gated}, inputs)" if names.rows else f"(inputs, {gated})"
                raise misfit(leaf, f"({gated},)" if kind == "bias" else kernel, cell)
