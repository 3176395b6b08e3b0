"""A transformation of its own for each gate's block of an LSTM's parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.gates import GATES, KINDS, GateMap
from lstm_optax.gates._find_gates import gate_finder
from lstm_optax.transforms.cutting import EVERY_BLOCK, Cut, Key, Piece
from lstm_optax.transforms.dtypes import check_real

Rules = Mapping[Any, optax.GradientTransformationExtraArgs]
_NO_PARAMETERS = 0  # a leaf, so that `optax.tree.map_params` takes all that is in its place as one
_APART = (
    "give complex parameters an optimizer of their own with optax.partition, since a rule by gate "
    "is for real LSTMs"
)


class ByGateState(NamedTuple):
    """State of `by_gate`."""

    blocks: Any  # a state for each named piece of a leaf, in the order of the leaves; a tuple
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
    axis; its moments lie in the state in that shape. Updates have the parameters' tree. The states
    of the blocks are not like the parameters, so `optax.tree.map_params` passes all of them at once
    to `transform_non_params`.

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
        if isinstance(params, _PLACEHOLDER):
            return ByGateState(_NO_PARAMETERS, rest_tx.init(params))
        check_real(params, "parameter", _APART)
        named, rest = Cut.of(find(params), rules, params).split(params)
        states = tuple(_init(rules[piece.key], piece, blocks) for piece, blocks in named)
        return ByGateState(states, rest_tx.init(rest))

    @jax.named_scope("by_gate")
    def update(updates, state, params=None, **extra_args):
        check_real(updates, "gradient", _APART)
        cut = Cut.of(find(updates), rules, updates)
        named, rest = cut.split(updates)
        named_params, rest_params = (None, None) if params is None else cut.split(params)
        done = [
            _update(
                rules[piece.key],
                piece,
                blocks,
                state.blocks[i],
                None if named_params is None else named_params[i][1],
                extra_args,
            )
            for i, (piece, blocks) in enumerate(named)
        ]
        new_rest, others_state = rest_tx.update(rest, state.others, rest_params, **extra_args)
        new_state = ByGateState(tuple(new for _, new in done), others_state)
        return cut.join([u for u, _ in done], new_rest), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _init(tx: optax.GradientTransformationExtraArgs, piece: Piece, blocks: Any) -> Any:
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
    piece: Piece,
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


def _placeholder_type() -> type:
    """The type of the parameters with which `optax.tree.map_params` calls `init`."""
    given = []

    def init(params):
        given.append(params)
        return ()

    optax.tree.map_params(init, lambda leaf: leaf, ())
    return type(given[0])


_PLACEHOLDER = _placeholder_type()
