"""Layout with one array for each gate: Flax cells with the modules ii, if, ig, io, hi, …"""

import re
from collections.abc import Iterator, Mapping

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.cells import (
    CellPath,
    cell_at,
    exclude_hint,
    parts_of_members,
    shape_error,
    unstack_ensemble,
)
from lstm_optax.gates.leaves import Leaf
from lstm_optax.gates.order import GATES

_NAME = re.compile(r"(?:(?P<prefix>.*)/)?(?P<module>[ih][ifgo])_?/(?P<own>kernel|bias)")
_GATE = dict(zip("ifgo", GATES, strict=True))
_MODULES = {kind + gate for kind in "ih" for gate in "ifgo"}


def separate_parts(leaves: Mapping[tuple[str, ...], Leaf]) -> Iterator[GatePart]:
    """Yield the parts of all LSTMs in this layout.

    Raises:
      ValueError: a shape is wrong, or some of the eight modules are missing.
    """
    cells: dict[CellPath, dict[tuple[str, str], Leaf]] = {}  # → {(module, "kernel"): leaf, …}
    for name, leaf in leaves.items():
        if match := _NAME.fullmatch("/".join(name)):
            prefix = tuple(match["prefix"].split("/")) if match["prefix"] else ()
            cells.setdefault(cell_at(prefix), {})[match["module"], match["own"]] = leaf
    for cell, own_leaves in cells.items():
        modules = {module for module, own in own_leaves if own == "kernel"}
        if not any({kind + gate for gate in "ifgo"} <= modules for kind in "ih"):
            continue  # another cell, such as a minimal gated unit
        if missing := sorted(_MODULES - modules):
            raise ValueError(
                f"the LSTM cell at {'/'.join(cell.prefix)!r} has no {', '.join(missing)}; pass all "
                f"eight modules, or {exclude_hint(cell.prefix)}"
            )
        own_leaves, members = unstack_ensemble(own_leaves, lambda name: name[1] == "bias")
        yield from parts_of_members(_cell_parts(cell, own_leaves), members)


def _cell_parts(cell: CellPath, own_leaves: Mapping[tuple[str, str], Leaf]) -> Iterator[GatePart]:
    arrays = {key: leaf for key, leaf in own_leaves.items() if leaf.shape is not None}
    sizes = [leaf.shape[-1] for leaf in arrays.values() if leaf.shape]
    hidden = sizes[0] if sizes else 0
    for (module, own), leaf in arrays.items():
        kind = "bias" if own == "bias" else f"kernel_{module[0]}h"
        match leaf.shape:
            case (size,) if kind == "bias" and size == hidden:
                pass
            case (inputs, size) if kind != "bias" and size == hidden:
                if kind == "kernel_hh" and inputs != hidden:
                    raise shape_error(leaf, f"({hidden}, {hidden})", cell)
            case _:
                expected = f"({hidden},)" if own == "bias" else f"(inputs, {hidden})"
                raise shape_error(leaf, expected, cell)
        yield cell.part(leaf, kind, (_GATE[module[1]],), (1, *leaf.shape))  # gate axis of length 1
