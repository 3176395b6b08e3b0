"""A cell of an LSTM: what the names above its parameters say, and the errors about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from lstm_optax.gates.blocks import GatePart
from lstm_optax.gates.leaves import Leaf

Name = TypeVar("Name")


class Cell(NamedTuple):
    """One layer in one direction of an LSTM that was found."""

    above: tuple[str, ...]  # the names above its parameters
    lstm: tuple[str, ...]  # those that the LSTM's other layers and directions share
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
        """Return a part of this cell: by default the whole leaf, gates along its first axis."""
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


def cell_at(above: tuple[str, ...]) -> Cell:
    """Return the cell below these names."""
    match above:
        case [*lstm, "layers", layer, ("forward" | "backward") as direction] if layer.isdigit():
            return Cell(above, tuple(lstm), int(layer), direction)
    words = [name.split("_")[0] for name in above if name.startswith(("forward_", "backward_"))]
    return Cell(above, above, 0, words[-1] if words else "forward")


def unstacked(
    leaves: Mapping[Name, Leaf], is_bias: Callable[[Name], bool]
) -> tuple[dict[Name, Leaf], int | None]:
    """Return the leaves of one member of an ensemble, and the number of members.

    An ensemble, as `jax.vmap` makes it, has one more axis in front of every array of a cell. Where
    the leaves of a cell do not, they stay as they are, and the number is None.
    """
    there = {name: leaf.shape for name, leaf in leaves.items() if leaf.shape is not None}
    counts = {
        shape[0] if len(shape) == (2 if is_bias(name) else 3) else None
        for name, shape in there.items()
    }
    if len(counts) != 1 or None in counts:
        return dict(leaves), None
    return {
        name: leaf._replace(shape=there[name][1:] if name in there else None)
        for name, leaf in leaves.items()
    }, counts.pop()


def stacked(parts: Iterable[GatePart], members: int | None) -> Iterator[GatePart]:
    """Return the parts of each member, where `unstacked` found an ensemble."""
    if members is None:
        yield from parts
        return
    for part in parts:
        for i in range(members):
            index = (slice(i, i + 1), *part.index)
            yield part._replace(lstm=f"{part.lstm}[{i}]", index=index, member=i)


def misfit(leaf: Leaf, expected: str, cell: Cell) -> ValueError:
    """Return the error of a leaf whose name fits an LSTM and whose shape does not."""
    return ValueError(
        f"{leaf} has the name of an LSTM's parameter, but shape {leaf.shape}; expected {expected}; "
        f"if it belongs to no LSTM, {leave_out(cell.above)}"
    )


def unclear(leaf: Leaf, why: str, layout: str, above: tuple[str, ...]) -> ValueError:
    """Return the error of a leaf that may or may not be an LSTM's."""
    at = "/".join(above)
    return ValueError(
        f"{leaf} {why}: say that it belongs to one by layout={{{at!r}: {layout!r}}}, or "
        f"{leave_out(above)}"
    )


def leave_out(above: tuple[str, ...]) -> str:
    """Return how to say that there is no LSTM."""
    return f"leave it out by layout={{{'/'.join(above)!r}: None}}"
