"""Cut a tree of parameters into gate blocks for `by_gate`, and put it together again.

`find_gates` describes the LSTM parameters as parts. A part is a region of one leaf that, reshaped,
has an axis of gates: a kernel [inputs, 4·hidden] becomes [inputs, 4, hidden] with gate axis 1.

1. `CutPlan.of` assigns each gate of a part to the key of a transformation, or to None. The gates of
   one part with the same key form a `Piece`; a leaf has the pieces of all its parts, in order.
2. `CutPlan.split` takes the pieces out of the leaves. It returns the pieces with a key as a list;
   each is updated by the transformation of its key. It returns everything else as one tree, the
   rest, which is updated by `others`. A leaf without keys is in the rest unchanged; a leaf that is
   cut is replaced by its pieces without a key, merged into one array, or by `MaskedNode`.
3. `CutPlan.join` is the inverse: it stacks the gates of each part in their order, reshapes each
   part to its region, and concatenates the regions to leaves.

The plan depends on paths and shapes only, so it is computed again from the updates in every call.
"""

import math
from collections.abc import Collection
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.gates import GateMap, GatePart

Key = str | tuple[str, str]
"""A gate, a kind, or a pair (kind, gate)."""

ALL_BLOCKS = "all blocks"
"""The key of every block if `by_gate` gets one transformation; not the name of a gate or a kind."""

Blocks = Any
"""Gate blocks in one array: a `jax.Array`, or a `jax.ShapeDtypeStruct` if only shapes are known."""


class Piece(NamedTuple):
    """The k gates of a part that have the same key."""

    part: GatePart
    key: Key | None  # None: the piece belongs to the rest
    positions: tuple[int, ...]  # of these gates on the gate axis of the part, in order; length k

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the blocks: of the part, with a gate axis of k; without it if k = 1."""
        k = len(self.positions)
        shape, axis = self.part.shape, self.part.axis
        return (*shape[:axis], *(() if k == 1 else (k,)), *shape[axis + 1 :])

    @property
    def flat_shape(self) -> tuple[int, ...]:
        """The shape of the blocks with the gate axis merged into the next: [inputs, k·hidden]."""
        shape, axis = self.part.shape, self.part.axis
        return (*shape[:axis], len(self.positions) * shape[axis + 1], *shape[axis + 2 :])

    def take(self, leaf: Any) -> Blocks:
        """Return the blocks from the leaf, in `shape`."""
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(self.take, leaf)
        gates = leaf[self.part.index].reshape(self.part.shape)  # [inputs, 4, hidden]
        if len(self.positions) == len(self.part.gates) > 1:
            return gates
        axis = self.part.axis
        blocks = [jax.lax.index_in_dim(gates, i, axis, keepdims=False) for i in self.positions]
        return blocks[0] if len(blocks) == 1 else jnp.stack(blocks, axis)  # [inputs, k, hidden]

    def unstack(self, blocks: Blocks) -> list[Blocks]:
        """Return the k single blocks, each without the gate axis: [inputs, hidden]."""
        k = len(self.positions)
        if k == 1:
            return [blocks]
        return [jax.lax.index_in_dim(blocks, i, self.part.axis, keepdims=False) for i in range(k)]


class CutPlan(NamedTuple):
    """The pieces of every leaf of a tree."""

    treedef: Any
    pieces: tuple[tuple[Piece, ...], ...]  # for each leaf; () if the leaf belongs to no LSTM

    @classmethod
    def of(cls, found: GateMap, keys: Collection[Key], params: Any) -> "CutPlan":
        """Return the plan for these gates, keys and parameters."""
        by_path: dict[tuple, list[Piece]] = {}  # path of a leaf → its pieces
        for part in found.parts:
            gate_keys = [_key_for(keys, part.kind, gate) for gate in part.gates]  # [gates]
            for key in dict.fromkeys(gate_keys):
                positions = tuple(i for i, other in enumerate(gate_keys) if other == key)
                by_path.setdefault(part.path, []).append(Piece(part, key, positions))
        paths, treedef = jax.tree_util.tree_flatten_with_path(params)
        return cls(treedef, tuple(tuple(by_path.get(path, ())) for path, _ in paths))

    def split(self, params: Any) -> tuple[list[tuple[Piece, Blocks]], Any]:
        """Return the pieces that have a key with their blocks, and the tree of the rest.

        The rest of a leaf must be one array, not a tuple of pieces: inside `nnx.Optimizer` the
        leaves are variables, and a variable holds one array.
        """
        keyed: list[tuple[Piece, Blocks]] = []  # in the order of the leaves
        rest: list[Any] = []  # one entry for each leaf
        for pieces, leaf in zip(self.pieces, self.treedef.flatten_up_to(params), strict=True):
            if all(piece.key is None for piece in pieces):
                rest.append(leaf)
                continue
            blocks = [(piece, piece.take(leaf)) for piece in pieces]
            keyed += [(piece, x) for piece, x in blocks if piece.key is not None]
            rest.append(_merge_rest([(piece, x) for piece, x in blocks if piece.key is None]))
        return keyed, self.treedef.unflatten(rest)

    def join(self, keyed: list[Blocks], rest: Any) -> Any:
        """Return the tree whose `split` returns these blocks, in this order, and this rest."""
        leaves, keyed_blocks = [], iter(keyed)
        for pieces, rest_leaf in zip(self.pieces, self.treedef.flatten_up_to(rest), strict=True):
            if all(piece.key is None for piece in pieces):
                leaves.append(rest_leaf)
                continue
            rest_blocks = iter(_split_rest(rest_leaf, [p for p in pieces if p.key is None]))
            blocks = [next(rest_blocks if p.key is None else keyed_blocks) for p in pieces]
            leaves.append(_join_leaf(list(zip(pieces, blocks, strict=True))))
        return self.treedef.unflatten(leaves)


def _merge_rest(blocks: list[tuple[Piece, Blocks]]) -> Any:
    """Merge the pieces of a leaf that have no key into one array.

    One piece becomes [inputs, k·hidden], pieces of several parts become one vector, and no piece
    becomes `MaskedNode`.
    """
    if not blocks:
        return optax.MaskedNode()
    arrays = [x for _, x in blocks]

    def merge(*arrays):
        if len(arrays) == 1:
            return arrays[0].reshape(blocks[0][0].flat_shape)
        return jnp.concatenate([jnp.ravel(x) for x in arrays])

    only_shapes = isinstance(arrays[0], jax.ShapeDtypeStruct)
    return jax.eval_shape(merge, *arrays) if only_shapes else merge(*arrays)


def _split_rest(merged: Any, pieces: list[Piece]) -> list[Blocks]:
    """Return the blocks of these pieces; the inverse of `_merge_rest`."""
    shapes = [piece.shape for piece in pieces]
    if len(pieces) < 2:
        return [merged.reshape(shape) for shape in shapes]
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    vectors = jnp.split(merged, ends[:-1])
    return [x.reshape(shape) for x, shape in zip(vectors, shapes, strict=True)]


def _join_leaf(blocks: list[tuple[Piece, Blocks]]) -> jax.Array:
    """Return the leaf from the blocks of all its pieces.

    The regions of the parts tile the leaf along its first axis: for Haiku the rows of `kernel_ih`,
    then those of `kernel_hh`. In an ensemble the members are along the first axis, and the regions
    of each member along the second.
    """
    parts: dict[tuple[int, ...], list[tuple[Piece, Blocks]]] = {}  # corner of a region → pieces
    for piece, x in blocks:
        corner = tuple(axis.start for axis in piece.part.index)
        parts.setdefault(corner, []).append((piece, x))
    rows: dict[int, list[jax.Array]] = {}  # start on the first axis → regions, along the second
    for corner, of_part in parts.items():
        part, gates = of_part[0][0].part, of_part[0][1]
        if len(of_part) > 1:  # several keys: bring the gates into their order
            by_position = {
                position: block
                for piece, x in of_part
                for position, block in zip(piece.positions, piece.unstack(x), strict=True)
            }
            ordered = [by_position[i] for i in sorted(by_position)]  # each [inputs, hidden]
            gates = jnp.stack(ordered, part.axis)  # [inputs, 4, hidden]
        region = gates.reshape([axis.stop - axis.start for axis in part.index])
        rows.setdefault(corner[0], []).append(region)  # [inputs, 4·hidden]
    arrays = [row[0] if len(row) == 1 else jnp.concatenate(row, axis=1) for row in rows.values()]
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def _key_for(keys: Collection[Key], kind: str, gate: str) -> Key | None:
    """Return the most specific key that names this gate of this kind, or None."""
    for key in (ALL_BLOCKS, (kind, gate), kind, gate):
        if key in keys:
            return key
    return None
