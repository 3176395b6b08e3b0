"""`optax.tree.map_params` with rules by gate, and the shardings of a state that it returns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from many_devices import first_devices
from mapped_params import copies_of_parameters
from rows import lstm_params_of
from table import GATE_RULES, OURS

import lstm_optax as lo


@pytest.mark.parametrize("name", GATE_RULES)
def test_map_params_skips_blocks(name):
    """`by_gate` hands the states of its blocks over as one; those of the others are mapped."""
    tx, params = OURS[name].build(), lstm_params_of()
    state = tx.init(params)
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
    assert others.count("parameter") == copies_of_parameters(ours.others) * len(
        jax.tree.leaves(params)
    )


@pytest.mark.parametrize("name", ["nadam", "awd_sgd", "gate_muon"])
def test_map_params_shards_a_state(name):
    """Optax's recipe: moments where their parameters are, the rest on every device."""
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,), devices=first_devices(8))
    lstm = lo.LSTMParams(jnp.ones((8, 16)), jnp.ones((4, 16)), jnp.ones(16))
    params = {"lstm": lstm, "head": jnp.ones((8, 2))}
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    shardings = {"lstm": jax.tree.map(lambda _: everywhere, lstm), "head": split}
    tx = OURS[name].build()
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
