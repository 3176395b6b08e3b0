"""The layout of Flax's cells that keep an array for each gate: modules ii, if, ig, io, hi, …"""

import re
from collections.abc import Iterator, Mapping

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import Cell, cell_at, leave_out, misfit, stacked, unstacked
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

_NAME = re.compile(r"(?:(?P<above>.*)/)?(?P<module>[ih][ifgo])_?/(?P<own>kernel|bias)")
_GATE = dict(zip("ifgo", GATES, strict=True))
_MODULES = {kind + gate for kind in "ih" for gate in "ifgo"}


def apart_parts(leaves: Mapping[tuple[str, ...], Leaf]) -> Iterator[GatePart]:
    """Return the parts of all LSTMs of this layout.

    Raises:
      ValueError: a shape does not fit, or some of the eight modules are missing.
    """
    cells: dict[Cell, dict[tuple[str, str], Leaf]] = {}
    for name, leaf in leaves.items():
        if match := _NAME.fullmatch("/".join(name)):
            above = tuple(match["above"].split("/")) if match["above"] else ()
            cells.setdefault(cell_at(above), {})[match["module"], match["own"]] = leaf
    for cell, theirs in cells.items():
        modules = {module for module, own in theirs if own == "kernel"}
        if not any({kind + gate for gate in "ifgo"} <= modules for kind in "ih"):
            continue  # another cell, such as a minimal gated unit
        if missing := sorted(_MODULES - modules):
            raise ValueError(
                f"the LSTM cell at {'/'.join(cell.above)!r} has no {', '.join(missing)}; give the "
                f"whole cell, or {leave_out(cell.above)}"
            )
        theirs, members = unstacked(theirs, lambda name: name[1] == "bias")
        yield from stacked(_parts(cell, theirs), members)


def _parts(cell: Cell, theirs: Mapping[tuple[str, str], Leaf]) -> Iterator[GatePart]:
    there = {key: leaf for key, leaf in theirs.items() if leaf.shape is not None}
    sizes = [leaf.shape[-1] for leaf in there.values() if leaf.shape]
    hidden = sizes[0] if sizes else 0
    for (module, own), leaf in there.items():
        kind = "bias" if own == "bias" else f"kernel_{module[0]}h"
        match leaf.shape:
            case (size,) if kind == "bias" and size == hidden:
                pass
            case (inputs, size) if kind != "bias" and size == hidden:
                if kind == "kernel_hh" and inputs != hidden:
                    raise misfit(leaf, f"({hidden}, {hidden})", cell)
            case _:
                raise misfit(leaf, f"({hidden},)" if own == "bias" else f"(inputs, {hidden})", cell)
        yield cell.part(leaf, kind, (_GATE[module[1]],), (1, *leaf.shape))
