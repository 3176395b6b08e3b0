"""Layouts with the four gates stacked in one array for each kind, in the order i, f, g, o."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import (
    CellPath,
    ambiguous_error,
    cell_at,
    exclude_hint,
    parts_of_members,
    shape_error,
    unstack_ensemble,
)
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

_BLOCKS_OF_OTHER_CELLS = (1, 2, 3)  # in the recurrent kernel of a simple RNN, MGU and GRU


class StackedLayout(NamedTuple):
    """The names and the orientation of the parameters of a cell in one library."""

    kernel_ih: str
    kernel_hh: str
    biases: tuple[str, ...]
    gates_first: bool = False  # kernels are [4·hidden, inputs] instead of [inputs, 4·hidden]
    suffix: str = ""  # regular expression for the text after each name
    unique_names: tuple[str, ...] = ("kernel_ih", "kernel_hh")  # not used by non-recurrent modules
    only_lstm: bool = False  # no other recurrent cell uses these names


STACKED_LAYOUTS = {
    "lstm_optax": StackedLayout("kernel_ih", "kernel_hh", ("bias",), only_lstm=True),
    "flax": StackedLayout("dense_i/kernel", "dense_h/kernel", ("dense_h/bias",)),
    "keras": StackedLayout("kernel", "recurrent_kernel", ("bias",), unique_names=("kernel_hh",)),
    "equinox": StackedLayout(
        "weight_ih", "weight_hh", ("bias", "bias_ih", "bias_hh"), gates_first=True
    ),
    "torch": StackedLayout(
        "weight_ih",
        "weight_hh",
        ("bias_ih", "bias_hh"),
        gates_first=True,
        suffix=r"_l(?P<layer>\d+)(?P<reverse>_reverse)?",
    ),
}


def stacked_parts(
    layout_name: str, leaves: Mapping[tuple[str, ...], Leaf], *, explicit: bool
) -> Iterator[GatePart]:
    """Yield the parts of all LSTMs in a layout.

    Args:
      layout_name: a key of `STACKED_LAYOUTS`.
      leaves: by name.
      explicit: whether the user passed this layout, so that names alone are sufficient.

    Raises:
      ValueError: a shape is wrong, or it is unclear whether a cell is an LSTM.
    """
    layout = STACKED_LAYOUTS[layout_name]
    for cell, own_leaves in _find_cells(layout, leaves).items():
        own_leaves, members = unstack_ensemble(own_leaves, layout.biases.__contains__)
        hidden = _hidden_size(layout_name, cell, own_leaves, explicit)
        if hidden is not None:
            yield from parts_of_members(_cell_parts(layout, cell, own_leaves, hidden), members)


def _find_cells(
    layout: StackedLayout, leaves: Mapping[tuple[str, ...], Leaf]
) -> dict[CellPath, dict[str, Leaf]]:
    """Return the cells whose parameters have the names of the layout, with their leaves by name."""
    unique = "|".join(getattr(layout, kind) for kind in layout.unique_names)
    pattern = re.compile(rf"(?:(?P<prefix>.*)/)?(?:{unique})(?P<suffix>{layout.suffix})")
    cells: dict[CellPath, dict[str, Leaf]] = {}
    for match in filter(None, (pattern.fullmatch("/".join(name)) for name in leaves)):
        prefix = tuple(match["prefix"].split("/")) if match["prefix"] else ()
        cell = cell_at(prefix)
        if layout.suffix:
            direction = "backward" if match["reverse"] else "forward"
            cell = CellPath(prefix, prefix, int(match["layer"]), direction)
        full_names = {
            name: (*prefix, *f"{name}{match['suffix']}".split("/"))
            for name in (layout.kernel_ih, layout.kernel_hh, *layout.biases, "weight_hr")
        }
        cells[cell] = {name: leaves[full] for name, full in full_names.items() if full in leaves}
        if "weight_hr" in cells[cell]:
            raise ValueError(
                f"{cells[cell]['weight_hr']} is a projection (proj_size > 0), which gate maps do "
                f"not support; {exclude_hint(prefix)}"
            )
    return cells


def _hidden_size(
    layout_name: str, cell: CellPath, own_leaves: Mapping[str, Leaf], explicit: bool
) -> int | None:
    """Return the hidden size, or None if the cell is not an LSTM or all its leaves are masked."""
    layout = STACKED_LAYOUTS[layout_name]
    recurrent = own_leaves.get(layout.kernel_hh)
    if recurrent is not None and recurrent.shape is not None:
        if len(recurrent.shape) == 2:
            gated, hidden = recurrent.shape if layout.gates_first else recurrent.shape[::-1]
            if gated == 4 * hidden > 0:
                return hidden
            if not explicit and gated in [n * hidden for n in _BLOCKS_OF_OTHER_CELLS]:
                return None
        expected = "(4·hidden, hidden)" if layout.gates_first else "(hidden, 4·hidden)"
        raise shape_error(recurrent, expected, cell)
    # Without the recurrent kernel, shapes do not distinguish an LSTM from other cells.
    arrays = [leaf for leaf in own_leaves.values() if leaf.shape is not None]
    if not arrays:
        return None
    if not (explicit or layout.only_lstm):
        why = "may belong to an LSTM, but the tree has no recurrent kernel to confirm it"
        raise ambiguous_error(arrays[0], why, layout_name, cell.prefix)
    gated = (arrays[0].shape or (0,))[0 if layout.gates_first else -1]
    if gated % 4 or not gated:
        raise shape_error(arrays[0], "a multiple of 4 on the gate axis", cell)
    return gated // 4


def _cell_parts(
    layout: StackedLayout, cell: CellPath, own_leaves: Mapping[str, Leaf], hidden: int
) -> Iterator[GatePart]:
    kinds = {layout.kernel_ih: "kernel_ih", layout.kernel_hh: "kernel_hh"}
    for name, leaf in own_leaves.items():
        kind, gated = kinds.get(name, "bias"), 4 * hidden
        match leaf.shape:
            case None:
                continue
            case (size,) if kind == "bias" and size == gated:
                yield cell.part(leaf, kind, GATES, (4, hidden))
            case (size, inputs) if kind != "bias" and layout.gates_first and size == gated:
                yield cell.part(leaf, kind, GATES, (4, hidden, inputs), transposed=True)
            case (inputs, size) if kind != "bias" and not layout.gates_first and size == gated:
                yield cell.part(leaf, kind, GATES, (inputs, 4, hidden), axis=1)
            case _:
                kernel = f"({gated}, inputs)" if layout.gates_first else f"(inputs, {gated})"
                raise shape_error(leaf, f"({gated},)" if kind == "bias" else kernel, cell)
