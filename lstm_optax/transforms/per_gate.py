"""A transformation of its own for each gate's block of an LSTM's parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.gates import GATES, KINDS, GateMap, GatePart
from lstm_optax.gates.finding import gate_finder

Key = str | tuple[str, str]
Rules = Mapping[Any, optax.GradientTransformationExtraArgs]
EVERY_BLOCK = "every block"


class ByGateState(NamedTuple):
    """State of `by_gate`."""

    blocks: Any  # the parameters' tree; for each leaf of an LSTM the states of its keys, a tuple
    others: optax.OptState  # of the rest, as one tree


def by_gate(
    tx: optax.GradientTransformation | Mapping[Key, optax.GradientTransformation],
    *,
    others: optax.GradientTransformation | None = None,
    gates: Callable[[Any], GateMap] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Apply a transformation to each gate's block on its own, as if it were the only parameter.

    Each block has a state and a norm of its own. Blocks of one array stay in it: it is reshaped so
    that the gates have an axis, [inputs, 4, hidden], and the transformation is mapped over that
    axis; its moments lie in the state in that shape. Updates have the parameters' tree.

    Args:
      tx: one transformation for all blocks; or a dictionary of them, from a gate in `GATES`, a kind
        in `KINDS`, or a pair (kind, gate), the pair going before the two others.
      others: for all that `tx` does not name, taken together as one tree: leaves outside any LSTM,
        and blocks without a key. By default the one `tx`; with a dictionary it must be given.
      gates: where the gates lie, as a function of the parameters: `find_gates`, or that with
        arguments, such as `functools.partial(find_gates, layout="keras")`.

    Raises:
      ValueError: a key is none of these, two keys name the same block, `others` is missing, or
        `gates` is no function; at `init`: there is no LSTM, or as `find_gates`.

    Reference: none; the transformation's own, on a part of the parameters.
    """
    if isinstance(tx, Mapping):
        _check_keys(tx, others)
    by_key = tx if isinstance(tx, Mapping) else {EVERY_BLOCK: tx}
    for key, one in by_key.items():
        check_transformations(**{f"tx[{key!r}]" if by_key is tx else "tx": one})
    if others is not None:
        check_transformations(others=others)
    rules: Rules = {key: optax.with_extra_args_support(one) for key, one in by_key.items()}
    rest_tx = optax.with_extra_args_support(others or tx)  # pyright: ignore[reportArgumentType]
    find = gate_finder(gates)

    def init(params):
        cut = _Cut.of(find(params), rules, params)
        named, rest = cut.split(params)
        states = [
            tuple(_init(rules[piece.key], piece, x) for piece, x in leaf) or optax.MaskedNode()
            for leaf in named
        ]
        return ByGateState(cut.tree.unflatten(states), rest_tx.init(rest))

    @jax.named_scope("by_gate")
    def update(updates, state, params=None, **extra_args):
        cut = _Cut.of(find(updates), rules, updates)
        named, rest = cut.split(updates)
        named_params, rest_params = (None, None) if params is None else cut.split(params)
        new_named, new_states = [], []
        for i, states in enumerate(cut.tree.flatten_up_to(state.blocks)):
            done = []
            for j, (piece, u) in enumerate(named[i]):
                p = None if named_params is None else named_params[i][j][1]
                done.append(_update(rules[piece.key], piece, u, states[j], p, extra_args))
            new_named.append([u for u, _ in done])
            new_states.append(tuple(s for _, s in done) or optax.MaskedNode())
        new_rest, others_state = rest_tx.update(rest, state.others, rest_params, **extra_args)
        new_state = ByGateState(cut.tree.unflatten(new_states), others_state)
        return cut.join(new_named, new_rest), new_state

    return optax.GradientTransformationExtraArgs(init, update)


class _Piece(NamedTuple):
    """The gates of a part that go to the same transformation."""

    part: GatePart
    key: Key | None  # None for the others
    at: tuple[int, ...]  # which of the part's gates

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


class _Cut(NamedTuple):
    """How the leaves of a tree are cut: for each leaf its pieces, none where it is no LSTM's."""

    tree: Any
    leaves: tuple[tuple[_Piece, ...], ...]

    @classmethod
    def of(cls, found: GateMap, rules: Rules, params: Any) -> "_Cut":
        pieces: dict[tuple, list[_Piece]] = {}
        for part in found.parts:
            keys = [_key(rules, part.kind, gate) for gate in part.gates]
            for key in dict.fromkeys(keys):
                at = tuple(i for i, other in enumerate(keys) if other == key)
                pieces.setdefault(part.path, []).append(_Piece(part, key, at))
        paths, tree = jax.tree_util.tree_flatten_with_path(params)
        return cls(tree, tuple(tuple(pieces.get(path, ())) for path, _ in paths))

    def split(self, params: Any) -> tuple[list[list[tuple[_Piece, Any]]], Any]:
        """The named pieces of each leaf, and the tree of the rest."""
        named, rest = [], []
        for pieces, leaf in zip(self.leaves, self.tree.flatten_up_to(params), strict=True):
            if all(piece.key is None for piece in pieces):
                named.append([])
                rest.append(leaf)
                continue
            cut = [(piece, piece.take(leaf)) for piece in pieces]
            named.append([(piece, x) for piece, x in cut if piece.key is not None])
            left = tuple(x for piece, x in cut if piece.key is None)
            rest.append(left or optax.MaskedNode())
        return named, self.tree.unflatten(rest)

    def join(self, named: list[list[Any]], rest: Any) -> Any:
        """The tree of which these are the pieces and the rest."""
        leaves = []
        for pieces, theirs, left in zip(
            self.leaves, named, self.tree.flatten_up_to(rest), strict=True
        ):
            if not theirs:
                leaves.append(left)
                continue
            theirs, left = iter(theirs), iter(left)
            leaves.append(_join([(p, next(left if p.key is None else theirs)) for p in pieces]))
        return self.tree.unflatten(leaves)


def _join(pieces: list[tuple[_Piece, Any]]) -> Any:
    """The leaf of which these are the pieces; its parts follow each other on its first axis."""
    parts: dict[int, list[tuple[_Piece, Any]]] = {}
    for piece, x in pieces:
        parts.setdefault(piece.part.index[0].start, []).append((piece, x))
    arrays = []
    for theirs in parts.values():
        part, blocks = theirs[0][0].part, theirs[0][1]
        if len(theirs) > 1:
            gates = {
                i: one
                for piece, x in theirs
                for i, one in zip(piece.at, piece.singles(x), strict=True)
            }
            blocks = jnp.stack([gates[i] for i in sorted(gates)], part.axis)
        arrays.append(blocks.reshape([cut.stop - cut.start for cut in part.index]))
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def _init(tx: optax.GradientTransformationExtraArgs, piece: _Piece, blocks: Any) -> Any:
    """The states of all blocks in one: moments lie as the blocks do, all else has a first axis."""
    if len(piece.at) == 1:
        return tx.init(blocks)
    if isinstance(blocks, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda x: _init(tx, piece, x), blocks)
    ones = piece.singles(blocks)

    def stack(*leaves):
        return jnp.stack(leaves, piece.part.axis if jnp.shape(leaves[0]) == ones[0].shape else 0)

    return jax.tree.map(stack, *[tx.init(one) for one in ones])


def _update(
    tx: optax.GradientTransformationExtraArgs,
    piece: _Piece,
    updates: Any,
    state: Any,
    params: Any,
    extra_args: Mapping[str, Any],
) -> tuple[Any, Any]:
    if len(piece.at) == 1:
        return tx.update(updates, state, params, **extra_args)
    axis = piece.part.axis
    axes = jax.tree.map(lambda s: axis if jnp.shape(s) == updates.shape else 0, state)

    def one(u, s, p):
        return tx.update(u, s, p, **extra_args)

    at = (axis, axes, None if params is None else axis)
    return jax.vmap(one, at, (axis, axes))(updates, state, params)


def _key(rules: Rules, kind: str, gate: str) -> Key | None:
    for key in (EVERY_BLOCK, (kind, gate), kind, gate):
        if key in rules:
            return key
    return None


def _check_keys(rules: Mapping[Key, Any], others: Any) -> None:
    for key in rules:
        pair = isinstance(key, tuple) and len(key) == 2 and key[0] in KINDS and key[1] in GATES
        if not (pair or key in GATES or key in KINDS):
            raise ValueError(
                f"{key!r} names no blocks; keys are a gate ({', '.join(GATES)}), a kind "
                f"({', '.join(KINDS)}), or a pair such as ('bias', 'forget')"
            )
    for kind in KINDS:
        for gate in GATES:
            if kind in rules and gate in rules and (kind, gate) not in rules:
                raise ValueError(
                    f"{kind!r} and {gate!r} both name the {kind} of the {gate} gate: say which by "
                    f"a key {(kind, gate)!r}"
                )
    if others is None:
        raise ValueError(
            "a dictionary of transformations needs others= for all that it does not name; "
            "optax.identity() leaves that as it is"
        )
