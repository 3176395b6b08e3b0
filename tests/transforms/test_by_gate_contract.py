"""What needs an LSTM keeps the contracts of every rule, on a tree that has one."""

from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_contract as contract
from jax.sharding import NamedSharding, PartitionSpec
from plain import plain_for
from rules_table import NEED_LSTM, Row, trajectory
from test_by_gate import H, gradients_of, params_of

import lstm_optax as lo

ROWS = {
    "by_gate": Row(
        lambda decay, eps: lo.by_gate(
            lo.precondition(lo.ema(decay), lo.mean_square(decay), eps=eps),
        ),
        {"decay": 0.9, "eps": 1e-3},
    ),
    "by_gate, keys": Row(
        lambda decay, max_norm: lo.by_gate(
            {"forget": lo.momentum(decay), ("bias", "cell"): lo.clip_by_global_norm(max_norm)},
            others=lo.momentum(0.5),
        ),
        {"decay": 0.9, "max_norm": 1.0},
    ),
    "gate_muon": Row(
        lo.gate_muon,
        {"learning_rate": 0.1, "momentum": 0.9, "rms": 0.2, "b1": 0.9, "b2": 0.99, "eps": 1e-6},
    ),
}
every_row = pytest.mark.parametrize("name", ROWS)
sampled_row = pytest.mark.parametrize("name", plain_for(ROWS, ["by_gate, keys"]))


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """These rows among the rules, on a tree with an LSTM, for the length of a test."""
    for name, row in ROWS.items():
        monkeypatch.setitem(contract.RULES, name, row)
        monkeypatch.setitem(contract.EVERYTHING, name, row)
    monkeypatch.setattr(contract, "params_of", params_of)
    monkeypatch.setattr(contract, "gradients_of", gradients_of)


def test_the_table_has_a_row_for_each():
    assert {name.split(",")[0] for name in ROWS} == NEED_LSTM


CONTRACTS = [
    contract.test_numbers_may_be_tracers,
    contract.test_state_tree_never_depends_on_a_number,
    contract.test_jit_and_scan_equal_the_plain_loop,
    contract.test_vmap_over_parameters,
    contract.test_inject_hyperparams,
    contract.test_multi_steps,
    contract.test_init_from_shapes,
    contract.test_unknown_extra_arguments,
]


@pytest.mark.slow
@every_row
@pytest.mark.parametrize("keeps", CONTRACTS, ids=lambda test: test.__name__[5:])
def test_keeps(keeps, name):
    keeps(name)


@every_row
def test_keeps_dtypes(name):
    contract.test_dtypes_stay(name, traced=True)


@pytest.mark.slow
@every_row
@pytest.mark.parametrize("traced", [False, True])
def test_keeps_dtypes_in_double_precision(name, traced, x64):
    contract.test_dtypes_stay_in_double_precision(name, traced, x64)
    for dtype in (jnp.float32, jnp.float64):
        state = ROWS[name].build().init(params_of(dtype))
        moments = {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.size >= 4 * H}
        assert moments == {jnp.dtype(dtype)}


@sampled_row
def test_masked_and_partition(name):
    """Under a mask, or a label, the LSTM moves as if it were alone; its biases may be masked."""
    tx, params, gradients = ROWS[name].build(), params_of(), gradients_of(3)
    alone = trajectory(tx, {"lstm": params["lstm"]}, {"lstm": gradients["lstm"]})[0]
    labels = {"lstm": "ours", "head": "frozen"}
    parts = optax.partition({"ours": tx, "frozen": optax.set_to_zero()}, labels)
    parted = trajectory(parts, params, gradients)[0]
    contract.close(parted["lstm"], alone["lstm"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(parted["head"]))
    mask = {"lstm": lo.LSTMParams(True, True, False), "head": False}
    masked = trajectory(optax.masked(tx, mask), params, gradients)[0]
    contract.close(masked["lstm"].kernel_hh, alone["lstm"].kernel_hh)
    contract.close(masked["lstm"].bias, gradients["lstm"].bias)


@pytest.mark.slow
@every_row
def test_donation_and_one_trace(name):
    """One trace of a donated `scan`, an LSTM for every mix of bf16, f16 and f32."""
    tx = optax.with_extra_args_support(ROWS[name].build())
    mixes = {f"{p} {g}": (p, g) for p, g in product(map(jnp.dtype, contract.FLOATS), repeat=2)}
    shapes = lo.LSTMParams((2, 8), (2, 8), (8,))

    def ones(dtype, *lead):
        return lo.LSTMParams(*(jnp.ones((*lead, *shape), dtype) for shape in shapes))

    params = {mix: ones(p) for mix, (p, _) in mixes.items()}
    gradients = {mix: ones(g, 3) for mix, (_, g) in mixes.items()}

    @chex.assert_max_traces(n=1)
    def run(state, gradients):
        return jax.lax.scan(lambda s, g: tx.update(g, s, params)[::-1], state, gradients)

    run, fresh = jax.jit(run, donate_argnums=0), jax.jit(tx.init)
    state = fresh(params)
    for _ in range(3):
        state, updates = run(state, gradients)
        assert contract.signature(state) == contract.signature(jax.eval_shape(tx.init, params))
        for leaf in jax.tree.leaves((state, updates)):
            assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


@sampled_row
@pytest.mark.parametrize("rows", [False, True])
def test_sharded_parameters(name, rows):
    """Moments lie where their parameters lie, and stay there, on the axis without gates."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(*((None, "data") if rows else ("data",))))
    names = ("weight_ih", "weight_hh") if rows else ("kernel_ih", "kernel_hh")
    whole = {name: jnp.ones((32, 8) if rows else (8, 32)) for name in names}
    params = jax.device_put(whole, sharding)
    tx = optax.with_extra_args_support(ROWS[name].build())
    state = tx.init(params)
    updates, new_state = jax.jit(tx.update)(params, state, params)
    for leaf in jax.tree.leaves((updates, state, new_state)):
        if leaf.size == 8 * 32:
            assert leaf.addressable_shards[0].data.size == 32
    contract.close(updates, jax.jit(tx.update)(whole, tx.init(whole), whole)[0])


def test_extra_arguments_reach_every_block():
    told = []

    def update(updates, state, params=None, *, value):
        told.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    params = params_of()
    tx = lo.by_gate(inner)
    tx.update(params, tx.init(params), params, value=7)
    assert told == [7] * 4  # three parameters of the LSTM, and all others as one tree
