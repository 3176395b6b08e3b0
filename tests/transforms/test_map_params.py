"""`optax.tree.map_params` tells the leaves like parameters from the others in every rule."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from presets_table import PRESETS
from rules_table import RULES
from test_by_gate import params_of
from test_by_gate_contract import ROWS

import lstm_optax as lo

EVERY_RULE = RULES | PRESETS | ROWS
LIKE_PARAMETERS = {  # how many copies of the parameters' tree a state holds, by its fields
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


@cache
def state_of(name):
    return EVERY_RULE[name].build().init(params_of())


def copies(state) -> int:
    return sum(n * len(lo.find_states(state, kind)) for kind, n in LIKE_PARAMETERS.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_RULE)
def test_identity_leaves_every_state_alone(name):
    tx, state = EVERY_RULE[name].build(), state_of(name)
    mapped = optax.tree.map_params(tx, lambda leaf: leaf, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    pairs = zip(jax.tree.leaves(mapped), jax.tree.leaves(state), strict=True)
    assert all(leaf is same for leaf, same in pairs)


@pytest.mark.parametrize("name", RULES | PRESETS)
def test_every_moment_gets_its_parameter(name):
    """Each copy of the parameters' tree is mapped with it; counts and the like are not."""
    tx, state, params = EVERY_RULE[name].build(), state_of(name), params_of()
    visited = []

    def visit(leaf, parameter):
        visited.append(leaf.shape)
        return leaf.shape == parameter.shape

    mapped = optax.tree.map_params(
        tx, visit, state, params, transform_non_params=lambda leaf: leaf.ndim < 2
    )
    assert all(jax.tree.leaves(mapped))
    assert len(visited) == copies(state) * len(jax.tree.leaves(params))


@pytest.mark.parametrize("name", ROWS)
def test_blocks_are_no_parameters(name):
    """`by_gate` hands the states of its blocks over as one; those of the others are mapped."""
    tx, state, params = EVERY_RULE[name].build(), state_of(name), params_of()
    mapped = optax.tree.map_params(
        tx,
        lambda leaf, parameter: "parameter",
        state,
        params,
        transform_non_params=lambda other: jax.tree.map(lambda _: "other", other),
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
    (ours,) = lo.find_states(mapped, lo.transforms.ByGateState)
    assert set(jax.tree.leaves(ours.blocks)) == {"other"}
    others = jax.tree.leaves(ours.others)
    assert others.count("parameter") == copies(ours.others) * len(jax.tree.leaves(params))


@pytest.mark.parametrize("name", ["nadam", "awd_sgd", "gate_muon"])
def test_shardings_of_a_state(name):
    """Optax's recipe: moments where their parameters are, the rest on every device."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    lstm = lo.LSTMParams(jnp.ones((8, 16)), jnp.ones((4, 16)), jnp.ones(16))
    params = {"lstm": lstm, "head": jnp.ones((8, 2))}
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    shardings = {"lstm": jax.tree.map(lambda _: everywhere, lstm), "head": split}
    tx = EVERY_RULE[name].build()
    state = tx.init(params)
    places = optax.tree.map_params(
        tx,
        lambda _, sharding: sharding,
        state,
        shardings,
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
    placed = jax.device_put(state, places)
    for leaf in jax.tree.leaves(placed):
        expected = split if leaf.shape == (8, 2) else everywhere
        assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
    np.testing.assert_equal(jax.device_get(placed), jax.device_get(state))
