"""A tree of parameters cut into the gates' blocks that have a transformation of their own."""

import math
from collections.abc import Collection
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.gates import GateMap, GatePart

Key = str | tuple[str, str]
EVERY_BLOCK = "every block"


class Piece(NamedTuple):
    """The gates of a part that go to the same transformation."""

    part: GatePart
    key: Key | None  # None for the others
    at: tuple[int, ...]  # which of the part's gates

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the blocks that `take` returns."""
        gates = () if len(self.at) == 1 else (len(self.at),)
        axis = self.part.axis
        return (*self.part.shape[:axis], *gates, *self.part.shape[axis + 1 :])

    @property
    def joined_shape(self) -> tuple[int, ...]:
        """That shape with the gates next to each other on one axis, as in most leaves."""
        shape, axis = self.part.shape, self.part.axis
        return (*shape[:axis], len(self.at) * shape[axis + 1], *shape[axis + 2 :])

    def take(self, leaf: Any) -> Any:
        """The blocks, with an axis of gates if there are several."""
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(self.take, leaf)
        blocks = leaf[self.part.index].reshape(self.part.shape)
        if len(self.at) == len(self.part.gates) > 1:
            return blocks
        ones = [jax.lax.index_in_dim(blocks, i, self.part.axis, keepdims=False) for i in self.at]
        return ones[0] if len(ones) == 1 else jnp.stack(ones, self.part.axis)

    def singles(self, blocks: Any) -> list[Any]:
        """The blocks one by one."""
        if len(self.at) == 1:
            return [blocks]
        axis = self.part.axis
        return [jax.lax.index_in_dim(blocks, i, axis, keepdims=False) for i in range(len(self.at))]


class Cut(NamedTuple):
    """How the leaves of a tree are cut: for each leaf its pieces, none where it is no LSTM's."""

    tree: Any
    leaves: tuple[tuple[Piece, ...], ...]

    @classmethod
    def of(cls, found: GateMap, keys: Collection[Key], params: Any) -> "Cut":
        """Return how the gates that were found are cut for these keys."""
        pieces: dict[tuple, list[Piece]] = {}
        for part in found.parts:
            theirs = [_key_of(keys, part.kind, gate) for gate in part.gates]
            for key in dict.fromkeys(theirs):
                at = tuple(i for i, other in enumerate(theirs) if other == key)
                pieces.setdefault(part.path, []).append(Piece(part, key, at))
        paths, tree = jax.tree_util.tree_flatten_with_path(params)
        return cls(tree, tuple(tuple(pieces.get(path, ())) for path, _ in paths))

    def split(self, params: Any) -> tuple[list[tuple[Piece, Any]], Any]:
        """Return the named pieces of all leaves, and the tree of the rest.

        The rest of a leaf is one array, never a tuple: inside `nnx.Optimizer` the leaves are
        variables, and a variable holds one array.
        """
        named, rest = [], []
        for pieces, leaf in zip(self.leaves, self.tree.flatten_up_to(params), strict=True):
            if all(piece.key is None for piece in pieces):
                rest.append(leaf)
                continue
            cut = [(piece, piece.take(leaf)) for piece in pieces]
            named += [(piece, blocks) for piece, blocks in cut if piece.key is not None]
            rest.append(_as_one([(piece, blocks) for piece, blocks in cut if piece.key is None]))
        return named, self.tree.unflatten(rest)

    def join(self, named: list[Any], rest: Any) -> Any:
        """Return the tree that `split` made these named pieces and this rest of."""
        leaves, named_blocks = [], iter(named)
        for pieces, left in zip(self.leaves, self.tree.flatten_up_to(rest), strict=True):
            if all(piece.key is None for piece in pieces):
                leaves.append(left)
                continue
            apart = iter(_apart(left, [piece for piece in pieces if piece.key is None]))
            blocks = [next(apart if piece.key is None else named_blocks) for piece in pieces]
            leaves.append(_join(list(zip(pieces, blocks, strict=True))))
        return self.tree.unflatten(leaves)


def _as_one(left: list[tuple[Piece, Any]]) -> Any:
    """Return the rest of a leaf as one array: [inputs, k·hidden], or a vector of several parts."""
    if not left:
        return optax.MaskedNode()
    shape = left[0][0].joined_shape if len(left) == 1 else (-1,)

    def joined(*blocks):
        one = blocks[0] if len(blocks) == 1 else jnp.concatenate([jnp.ravel(x) for x in blocks])
        return one.reshape(shape)

    blocks = [blocks for _, blocks in left]
    lazy = isinstance(blocks[0], jax.ShapeDtypeStruct)
    return jax.eval_shape(joined, *blocks) if lazy else joined(*blocks)


def _apart(left: Any, pieces: list[Piece]) -> list[Any]:
    """Return the blocks that `_as_one` joined."""
    shapes = [piece.shape for piece in pieces]
    if len(pieces) < 2:
        return [left.reshape(shape) for shape in shapes]
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    return [x.reshape(s) for x, s in zip(jnp.split(left, ends[:-1]), shapes, strict=True)]


def _join(pieces: list[tuple[Piece, Any]]) -> Any:
    """Return the leaf that was cut into these pieces, its parts along its first axes."""
    parts: dict[tuple[int, ...], list[tuple[Piece, Any]]] = {}
    for piece, x in pieces:
        parts.setdefault(tuple(cut.start for cut in piece.part.index), []).append((piece, x))
    rows: dict[int, list[Any]] = {}  # an ensemble's leaf may hold two kinds for each member
    for start, theirs in parts.items():
        part, blocks = theirs[0][0].part, theirs[0][1]
        if len(theirs) > 1:
            gates = {
                i: one
                for piece, x in theirs
                for i, one in zip(piece.at, piece.singles(x), strict=True)
            }
            blocks = jnp.stack([gates[i] for i in sorted(gates)], part.axis)
        rows.setdefault(start[0], []).append(
            blocks.reshape([cut.stop - cut.start for cut in part.index])
        )
    arrays = [row[0] if len(row) == 1 else jnp.concatenate(row, axis=1) for row in rows.values()]
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def _key_of(keys: Collection[Key], kind: str, gate: str) -> Key | None:
    for key in (EVERY_BLOCK, (kind, gate), kind, gate):
        if key in keys:
            return key
    return None
