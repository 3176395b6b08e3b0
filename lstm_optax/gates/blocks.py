"""Gate maps: the location of every gate block in a tree of parameters."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class GateBlock(NamedTuple):
    """The location of one gate's block of one LSTM parameter: `leaf[index].reshape(shape)`."""

    path: tuple[Any, ...]  # key path of the leaf, as in `jax.tree_util.tree_flatten_with_path`
    lstm: str  # path prefix that identifies the LSTM; "" at the root
    layer: int  # layer of that LSTM; 0 if the names do not include it
    direction: str  # "forward" or "backward"; "forward" if the names do not include it
    kind: str  # one of `KINDS`
    gate: str  # one of `GATES`
    index: tuple[slice, ...]  # region of the block in the leaf
    shape: tuple[int, ...]  # shape of the block, without axes of size 1 for a member or gate
    transposed: bool  # True: a kernel block is [hidden, inputs]; False: [inputs, hidden]
    added: float  # constant that the library adds to the gate's bias: 1 for Haiku's forget gate

    def take(self, leaf: Any) -> Any:
        """Return the block of a leaf: a kernel as [inputs, hidden], a bias as [hidden]."""
        block = leaf[self.index].reshape(self.shape)
        return block.T if self.transposed else block

    def put(self, leaf: Any, block: Any) -> Any:
        """Return the leaf with the block replaced, in the shape that `take` returns."""
        import jax.numpy as jnp

        leaf = jnp.asarray(leaf)
        old = leaf[self.index]
        block = block.T if self.transposed else block
        return leaf.at[self.index].set(block.reshape(old.shape).astype(old.dtype))


class GatePart(NamedTuple):
    """The location of one parameter of one LSTM cell: `leaf[index].reshape(shape)`.

    The reshaped array has a gate axis. If each gate has an array of its own, a part is one gate of
    the parameter, and the gate axis has length 1. Fields without a comment are as in `GateBlock`.
    """

    path: tuple[Any, ...]
    lstm: str
    layer: int
    direction: str
    kind: str
    gates: tuple[str, ...]  # in their order on the gate axis
    index: tuple[slice, ...]  # region of the part in the leaf
    shape: tuple[int, ...]  # with the gate axis, such as (inputs, 4, hidden)
    axis: int  # the gate axis of `shape`
    transposed: bool
    added: tuple[float, ...]  # for each gate
    member: int | None = None  # index on the leaf's first axis if the leaf stacks an ensemble

    def blocks(self) -> Iterator[GateBlock]:
        """Yield the blocks of the part, in their order on the gate axis."""
        shape = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        for i, gate in enumerate(self.gates):
            yield GateBlock(
                self.path,
                self.lstm,
                self.layer,
                self.direction,
                self.kind,
                gate,
                self._index_of(i),
                shape,
                self.transposed,
                self.added[i],
            )

    def _index_of(self, i: int) -> tuple[slice, ...]:
        """Return the region of gate i in the leaf."""
        before = 0 if self.member is None else 1  # axes in front that `shape` does not have
        axis = before + min(self.axis, len(self.index) - before - 1)  # a flat vector has one axis
        start, stop = self.index[axis].start, self.index[axis].stop
        size = (stop - start) // len(self.gates)
        of_gate = slice(start + i * size, start + (i + 1) * size)
        return (*self.index[:axis], of_gate, *self.index[axis + 1 :])


class GateMap(NamedTuple):
    """The location of the gates of every LSTM in a tree, as returned by `find_gates`."""

    parts: tuple[GatePart, ...]

    @property
    def blocks(self) -> tuple[GateBlock, ...]:
        """The blocks of every LSTM."""
        return tuple(block for part in self.parts for block in part.blocks())

    def map(self, fn: Callable[[GateBlock, Any], Any], params: Any) -> Any:
        """Return the parameters with every block x replaced by fn(its `GateBlock`, x).

        `fn` gets and returns a kernel as [inputs, hidden] and a bias as [hidden]. Leaves outside an
        LSTM are returned unchanged.
        """
        from jax.tree_util import tree_map_with_path

        by_path: dict[tuple, list[GateBlock]] = {}
        for block in self.blocks:
            by_path.setdefault(block.path, []).append(block)

        def map_leaf(path, leaf):
            for block in by_path.get(path, ()):
                leaf = block.put(leaf, fn(block, block.take(leaf)))
            return leaf

        return tree_map_with_path(map_leaf, params)
