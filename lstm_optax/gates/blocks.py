"""What a gate map is made of: parts of leaves that belong to one LSTM, cut into gates."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class GateBlock(NamedTuple):
    """One gate's block of one parameter of an LSTM: `leaf[index]`, which `take` reads."""

    path: tuple[
        Any, ...
    ]  # of the leaf in the tree, as `jax.tree_util.tree_flatten_with_path` has it
    lstm: str  # the names above it, by which an LSTM is told from others; "" at the root
    layer: int  # in that LSTM; 0 where the names do not say
    direction: str  # "forward", also where the names do not say, or "backward"
    kind: str  # of `KINDS`
    gate: str  # of `GATES`
    index: tuple[slice, ...]  # where it lies in the leaf
    shape: tuple[int, ...]  # what leaf[index] is reshaped to
    transposed: bool  # a kernel is [hidden, inputs]; else [inputs, hidden]
    added: float  # what the library itself adds to the gate's bias: 1 at Haiku's forget gate, or 0

    def take(self, leaf: Any) -> Any:
        """Return the block of a leaf: a kernel as [inputs, hidden], a bias as [hidden]."""
        block = leaf[self.index].reshape(self.shape)
        return block.T if self.transposed else block

    def put(self, leaf: Any, block: Any) -> Any:
        """Return the leaf with this block in it, laid out as `take` gives it."""
        import jax.numpy as jnp

        leaf = jnp.asarray(leaf)
        there = leaf[self.index]
        block = block.T if self.transposed else block
        return leaf.at[self.index].set(block.reshape(there.shape).astype(there.dtype))


class GatePart(NamedTuple):
    """One parameter of one LSTM, or one gate of it where each has an array of its own.

    `leaf[index].reshape(shape)` has an axis along which the gates lie.
    """

    path: tuple[Any, ...]
    lstm: str
    layer: int
    direction: str
    kind: str
    gates: tuple[str, ...]  # in the order in which they lie
    index: tuple[slice, ...]  # where the part lies in the leaf
    shape: tuple[int, ...]  # with an axis of len(gates)
    axis: int  # that axis
    transposed: bool
    added: tuple[float, ...]  # for each gate
    member: int | None = None  # on the leaf's first axis, where that stacks an ensemble

    def blocks(self) -> Iterator[GateBlock]:
        """Return the blocks of the part, as they lie."""
        shape = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        for i, gate in enumerate(self.gates):
            yield GateBlock(
                self.path,
                self.lstm,
                self.layer,
                self.direction,
                self.kind,
                gate,
                self._cut(i),
                shape,
                self.transposed,
                self.added[i],
            )

    def _cut(self, i: int) -> tuple[slice, ...]:
        """Where gate i lies in the leaf."""
        before = 0 if self.member is None else 1  # axes of the leaf that a block does not have
        axis = before + min(self.axis, len(self.index) - before - 1)  # a flat vector has one
        start, stop = self.index[axis].start, self.index[axis].stop
        size = (stop - start) // len(self.gates)
        cut = slice(start + i * size, start + (i + 1) * size)
        return (*self.index[:axis], cut, *self.index[axis + 1 :])


class GateMap(NamedTuple):
    """Where the gates of every LSTM of a tree lie, as `find_gates` finds them."""

    parts: tuple[GatePart, ...]

    @property
    def blocks(self) -> tuple[GateBlock, ...]:
        """Every block of every LSTM."""
        return tuple(block for part in self.parts for block in part.blocks())

    def map(self, fn: Callable[[GateBlock, Any], Any], params: Any) -> Any:
        """Return the parameters with every block replaced by fn(where it is, the block).

        A kernel comes and goes as [inputs, hidden], a bias as [hidden]; leaves outside an LSTM stay
        as they are.
        """
        from jax.tree_util import tree_map_with_path

        of_leaf: dict[tuple, list[GateBlock]] = {}
        for block in self.blocks:
            of_leaf.setdefault(block.path, []).append(block)

        def leaf(path, value):
            for block in of_leaf.get(path, ()):
                value = block.put(value, fn(block, block.take(value)))
            return value

        return tree_map_with_path(leaf, params)
