"""`by_gate`: a separate transformation for each gate block of an LSTM.

`init` and `update` find the gates, cut the tree into pieces (see `cutting`), and call one
transformation for each piece and one for the rest. A piece is k gates of one parameter with the
same transformation, in one array such as [inputs, k, hidden].

The k gates must not influence each other, for example through a common norm. So `update` is mapped
over the gate axis with `jax.vmap`, and the state is that of k single blocks, stacked. A leaf with
the shape of a block, such as a moment, is stacked on the gate axis, so that it has the shape of the
piece; any other leaf, such as a count, is stacked on a new first axis: [k, …]. For k = 1 there is
no gate axis, and the transformation is called directly.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.gates import GATES, KINDS, GateMap
from lstm_optax.gates._find_gates import gate_finder
from lstm_optax.transforms.cutting import ALL_BLOCKS, Blocks, CutPlan, Key, Piece
from lstm_optax.transforms.dtypes import check_real

_COMPLEX_REMEDY = (
    "use a separate optimizer for complex parameters with optax.partition, because by_gate "
    "supports real LSTMs only"
)

_BLOCKS_LEAF = 0
"""In place of the states of the blocks when `optax.tree.map_params` calls `init`.

It is a leaf, so `map_params` treats the whole tuple of states as one value that is not a parameter.
"""


class ByGateState(NamedTuple):
    """State of `by_gate`."""

    blocks: Any  # a tuple: the state of each piece, in the order of the leaves
    others: optax.OptState  # the state of the rest, as one tree


def by_gate(
    tx: optax.GradientTransformation | Mapping[Key, optax.GradientTransformation],
    *,
    others: optax.GradientTransformation | None = None,
    gates: Callable[[Any], GateMap] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Apply a transformation to each gate block separately, as if it were the only parameter.

    Each block has its own state, and norms are computed for each block. Updates have the tree of
    the parameters. In the state, the moments of the gates in one array have the shape of that array
    with a gate axis, such as [inputs, 4, hidden]; `optax.tree.map_params` therefore passes the
    states of all blocks as one value to `transform_non_params`.

    Args:
      tx: one transformation for all blocks; or a dictionary of transformations, whose keys are a
        gate in `GATES`, a kind in `KINDS`, or a pair (kind, gate), which takes precedence.
      others: the transformation for all other parameters together, as one tree: leaves outside any
        LSTM, and blocks without a key. The default is `tx`; with a dictionary it is required.
      gates: a function from the parameters to their `GateMap`: by default `find_gates`; to pass
        arguments, use for example `functools.partial(find_gates, layout="keras")`.

    Raises:
      ValueError: a key is invalid, two keys name the same block, `others` is missing, or `gates` is
        not a function; at `init`: the tree has no LSTM, or `find_gates` raises.

    Reference: that of the transformations.
    """
    if isinstance(tx, Mapping):
        _check_keys(tx, others)
    by_key = tx if isinstance(tx, Mapping) else {ALL_BLOCKS: tx}
    for key, key_tx in by_key.items():
        check_transformations(**{f"tx[{key!r}]" if by_key is tx else "tx": key_tx})
    if others is not None:
        check_transformations(others=others)
    txs: Mapping[Any, optax.GradientTransformationExtraArgs] = {
        key: optax.with_extra_args_support(key_tx) for key, key_tx in by_key.items()
    }
    rest_tx = optax.with_extra_args_support(others or tx)  # pyright: ignore[reportArgumentType]
    find = gate_finder(gates)

    def init(params):
        if isinstance(params, _PLACEHOLDER):
            return ByGateState(_BLOCKS_LEAF, rest_tx.init(params))
        check_real(params, "parameter", _COMPLEX_REMEDY)
        keyed, rest = CutPlan.of(find(params), txs, params).split(params)
        states = tuple(_init_piece(txs[piece.key], piece, blocks) for piece, blocks in keyed)
        return ByGateState(states, rest_tx.init(rest))

    @jax.named_scope("by_gate")
    def update(updates, state, params=None, **extra_args):
        check_real(updates, "gradient", _COMPLEX_REMEDY)
        plan = CutPlan.of(find(updates), txs, updates)
        keyed, rest = plan.split(updates)  # [(piece, blocks)], tree
        keyed_params, rest_params = (None, None) if params is None else plan.split(params)
        updated = [  # [(new updates, new state)], for each piece
            _update_piece(
                txs[piece.key],
                piece,
                blocks,
                state.blocks[i],
                None if keyed_params is None else keyed_params[i][1],
                extra_args,
            )
            for i, (piece, blocks) in enumerate(keyed)
        ]
        new_rest, others_state = rest_tx.update(rest, state.others, rest_params, **extra_args)
        new_state = ByGateState(tuple(piece_state for _, piece_state in updated), others_state)
        return plan.join([blocks for blocks, _ in updated], new_rest), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _init_piece(
    tx: optax.GradientTransformationExtraArgs, piece: Piece, blocks: Blocks
) -> optax.OptState:
    """Return the states of the k blocks of a piece, stacked.

    Leaves with the shape of a block are stacked on the gate axis, the others on a first axis.
    """
    if len(piece.positions) == 1:
        return tx.init(blocks)  # no gate axis: [inputs, hidden]
    if isinstance(blocks, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda x: _init_piece(tx, piece, x), blocks)
    singles = piece.unstack(blocks)  # k arrays [inputs, hidden]

    def stack(*leaves: Any) -> jax.Array:  # the same leaf of k states
        like_block = jnp.shape(leaves[0]) == singles[0].shape
        return jnp.stack(leaves, piece.part.axis if like_block else 0)  # [inputs, k, hidden], [k]

    return jax.tree.map(stack, *[tx.init(single) for single in singles])


def _update_piece(
    tx: optax.GradientTransformationExtraArgs,
    piece: Piece,
    updates: Blocks,
    state: optax.OptState,
    params: Blocks | None,
    extra_args: Mapping[str, Any],
) -> tuple[Blocks, optax.OptState]:
    """Return the new blocks and the new state of a piece; extra arguments are not mapped."""
    if len(piece.positions) == 1:
        return tx.update(updates, state, params, **extra_args)
    axis = piece.part.axis
    # A stacked leaf has the shape of the piece exactly if it was stacked on the gate axis.
    state_axes = jax.tree.map(lambda s: axis if jnp.shape(s) == updates.shape else 0, state)

    def update_block(u: Any, s: Any, p: Any) -> tuple[Any, Any]:  # u, p: [inputs, hidden]
        return tx.update(u, s, p, **extra_args)

    in_axes = (axis, state_axes, None if params is None else axis)
    return jax.vmap(update_block, in_axes, (axis, state_axes))(updates, state, params)


def _check_keys(txs: Mapping[Key, Any], others: Any) -> None:
    """Raise ValueError for an invalid or ambiguous key, or if `others` is None."""
    for key in txs:
        pair = isinstance(key, tuple) and len(key) == 2 and key[0] in KINDS and key[1] in GATES
        if not (pair or key in GATES or key in KINDS):
            raise ValueError(
                f"{key!r} is not a key; expected a gate ({', '.join(GATES)}), a kind "
                f"({', '.join(KINDS)}), or a pair such as ('bias', 'forget')"
            )
    for kind in KINDS:
        for gate in GATES:
            if kind in txs and gate in txs and (kind, gate) not in txs:
                raise ValueError(
                    f"{kind!r} and {gate!r} both name the {kind} of the {gate} gate: add the key "
                    f"{(kind, gate)!r} with the transformation for it"
                )
    if others is None:
        raise ValueError(
            "a dictionary of transformations needs others= for all other parameters; "
            "optax.identity() leaves their updates unchanged"
        )


def _placeholder_type() -> type:
    """Return the type of the placeholder that `optax.tree.map_params` passes to `init`.

    Optax does not export this type, so it is read from a call.
    """
    received = []

    def init(params):
        received.append(params)
        return ()

    optax.tree.map_params(init, lambda leaf: leaf, ())
    return type(received[0])


_PLACEHOLDER = _placeholder_type()
