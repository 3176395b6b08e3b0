"""Cells of LSTMs by the path of their parameters, ensembles of cells, and errors about cells.

Used by every layout: a layout finds the leaves of a cell by name and returns its parts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.leaves import Leaf

Name = TypeVar("Name")


class CellPath(NamedTuple):
    """The location of one LSTM cell, which is one layer in one direction of an LSTM."""

    prefix: tuple[str, ...]  # path prefix of the parameters of this cell
    lstm: tuple[str, ...]  # path prefix of the LSTM, for all its layers and directions
    layer: int = 0
    direction: str = "forward"

    def part(
        self,
        leaf: Leaf,
        kind: str,
        gates: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        index: tuple[slice, ...] | None = None,
        axis: int = 0,
        transposed: bool = False,
        added: tuple[float, ...] | None = None,
    ) -> GatePart:
        """Return a part of this cell: by default the whole leaf, with the gates on axis 0."""
        return GatePart(
            leaf.path,
            "/".join(self.lstm),
            self.layer,
            self.direction,
            kind,
            gates,
            index or tuple(slice(0, size) for size in leaf.shape or ()),
            shape,
            axis,
            transposed,
            added or (0.0,) * len(gates),
        )


def cell_at(prefix: tuple[str, ...]) -> CellPath:
    """Return the cell at a path prefix.

    The layer and the direction are read from paths such as "lstm/layers/1/backward" of this library
    and "backward_lstm" of Keras.
    """
    match prefix:
        case [*lstm, "layers", layer, ("forward" | "backward") as direction] if layer.isdigit():
            return CellPath(prefix, tuple(lstm), int(layer), direction)
    words = [name.split("_")[0] for name in prefix if name.startswith(("forward_", "backward_"))]
    return CellPath(prefix, prefix, 0, words[-1] if words else "forward")


def unstack_ensemble(
    leaves: Mapping[Name, Leaf], is_bias: Callable[[Name], bool]
) -> tuple[dict[Name, Leaf], int | None]:
    """Return the leaves of a cell with the shapes of one ensemble member, and the member count.

    In an ensemble from `jax.vmap`, all arrays of a cell have one more axis in front, of the same
    size. Otherwise the leaves are returned unchanged, and the count is None.
    """
    shapes = {name: leaf.shape for name, leaf in leaves.items() if leaf.shape is not None}
    counts = {
        shape[0] if len(shape) == (2 if is_bias(name) else 3) else None
        for name, shape in shapes.items()
    }
    if len(counts) != 1 or None in counts:
        return dict(leaves), None
    return {
        name: leaf._replace(shape=shapes[name][1:] if name in shapes else None)
        for name, leaf in leaves.items()
    }, counts.pop()


def parts_of_members(parts: Iterable[GatePart], members: int | None) -> Iterator[GatePart]:
    """Yield the parts of all members from those of one, or unchanged if `members` is None."""
    if members is None:
        yield from parts
        return
    for part in parts:
        for i in range(members):
            index = (slice(i, i + 1), *part.index)
            yield part._replace(lstm=f"{part.lstm}[{i}]", index=index, member=i)


def shape_error(leaf: Leaf, expected: str, cell: CellPath) -> ValueError:
    """Return the error for a leaf with the name of an LSTM parameter and a wrong shape."""
    return ValueError(
        f"{leaf} has the name of an LSTM parameter, but shape {leaf.shape}; expected {expected}; "
        f"if it does not belong to an LSTM, {exclude_hint(cell.prefix)}"
    )


def ambiguous_error(leaf: Leaf, why: str, layout: str, prefix: tuple[str, ...]) -> ValueError:
    """Return the error for a leaf that may or may not belong to an LSTM."""
    at = "/".join(prefix)
    return ValueError(
        f"{leaf} {why}: if it belongs to an LSTM, pass layout={{{at!r}: {layout!r}}}; if not, "
        f"{exclude_hint(prefix)}"
    )


def exclude_hint(prefix: tuple[str, ...]) -> str:
    """Return the advice for errors on how to exclude a path prefix from the search."""
    return f"exclude it with layout={{{'/'.join(prefix)!r}: None}}"
