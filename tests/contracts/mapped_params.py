"""Contracts of `optax.tree.map_params`, which finds the leaves of a state like parameters."""

import jax
import optax
from rows import LSTM, SMALL, Row

import lstm_optax as lo

LIKE_PARAMETERS = {  # how many copies of the parameters' tree a state holds in its fields
    lo.transforms.MomentumState: 1,
    lo.transforms.EmaState: 1,
    lo.transforms.DampedMomentumState: 1,
    lo.transforms.CorrectedMomentumState: 1,
    lo.transforms.DozatMomentumState: 1,
    lo.transforms.MeanSquareState: 1,
    lo.transforms.CenteredMeanSquareState: 2,
    lo.transforms.SumSquareState: 1,
    lo.transforms.RunningMaxState: 1,
    lo.transforms.AverageState: 1,
}


def copies_of_parameters(state) -> int:
    return sum(n * len(lo.find_states(state, kind)) for kind, n in LIKE_PARAMETERS.items())


def map_params_keeps_the_state(row: Row):
    """With the identity, `optax.tree.map_params` returns the very leaves of a state."""
    tx, params = row.build(), LSTM.params()
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, lambda leaf: leaf, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    pairs = zip(jax.tree.leaves(mapped), jax.tree.leaves(state), strict=True)
    assert all(leaf is same for leaf, same in pairs)


def map_params_finds_every_moment(row: Row):
    """Each copy of the parameters' tree is mapped with it; counts and the like are not."""
    assert row.tree is SMALL  # `by_gate` hides the states of its blocks
    tx, params = row.build(), LSTM.params()
    state, visited = tx.init(params), []

    def visit(leaf, parameter):
        visited.append(leaf.shape)
        return leaf.shape == parameter.shape

    mapped = optax.tree.map_params(
        tx, visit, state, params, transform_non_params=lambda leaf: leaf.ndim < 2
    )
    assert all(jax.tree.leaves(mapped))
    assert len(visited) == copies_of_parameters(state) * len(jax.tree.leaves(params))
