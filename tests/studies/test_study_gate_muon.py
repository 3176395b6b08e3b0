"""`study_gate_muon.py`: its contenders are what their names say."""

import gate_muon_table
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gate_muon_table import RECORDS, cells_with_records, fine_table, pairs_table
from study_gate_muon import (
    CELLS,
    FINE_RATES,
    KERNELS,
    MOMENTUM,
    MORE_CELLS,
    NADAM,
    RMS,
    RULES,
    TASKS,
    cell_rates,
    cell_task,
    jordan_momentum,
    muon_on,
    whole_muon,
)

import lstm_optax as lo
from lstm_optax.transforms.muon import muon_direction

RATE = 0.1


@pytest.fixture(scope="module")
def params():
    return nnx.state(lo.LSTM(3, 4, rngs=nnx.Rngs(0)), nnx.Param)


def last_updates(tx, params, steps=3):
    """The updates of the last of several steps with random gradients."""
    state, keys = tx.init(params), jax.random.split(jax.random.key(1), steps)
    update = jax.jit(tx.update)
    for key in keys:
        leaves, tree = jax.tree.flatten(params)
        shared = [jax.random.fold_in(key, i) for i in range(len(leaves))]
        drawn = [jax.random.normal(k, p.shape) for k, p in zip(shared, leaves, strict=True)]
        updates, state = update(tree.unflatten(drawn), state, params)
    return {jax.tree_util.keystr(k): np.asarray(u) for k, u in jax.tree.leaves_with_path(updates)}


def assert_close(found, expected):
    """The iteration of Muon amplifies rounding."""
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * RATE * RMS)


def test_all_kernels_together_are_gate_muon(params):
    found = last_updates(muon_on(*KERNELS)(RATE), params)
    expected = last_updates(lo.gate_muon(RATE), params)
    for name, update in expected.items():
        assert_close(found[name], update)


def test_blocks_that_are_not_named_have_nadam(params):
    found = last_updates(muon_on(("kernel_hh", "forget"))(RATE), params)
    whole = last_updates(lo.gate_muon(RATE), params)
    nadam = last_updates(lo.nadam(RATE, **NADAM), params)
    for name in found:
        parts = [np.split(tree[name], 4, axis=-1) for tree in (found, whole, nadam)]
        for gate, (ours, muon, other) in enumerate(zip(*parts, strict=True)):
            is_muon = "kernel_hh" in name and lo.gates.GATES[gate] == "forget"
            assert_close(ours, muon if is_muon else other)


def test_whole_kernels_are_one_matrix_each(params):
    found = last_updates(whole_muon(RATE), params)
    nadam = last_updates(lo.nadam(RATE, **NADAM), params)
    gates = last_updates(lo.gate_muon(RATE), params)
    for name in found:
        if "kernel_" in name:  # the entries have the size that `gate_muon` gives them
            size = np.sqrt(np.mean(found[name] ** 2))
            assert size == pytest.approx(RATE * RMS, rel=0.2)
            assert not np.allclose(found[name], gates[name], rtol=0.1)
        else:
            assert_close(found[name], nadam[name])


def test_mixing_of_jordan_is_that_of_its_formula():
    tx, m = jordan_momentum(0.9), np.zeros(3)
    state = tx.init(jnp.zeros(3))
    for g in np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32):
        found, state = tx.update(jnp.asarray(g), state)
        m = 0.9 * m + 0.1 * g
        np.testing.assert_allclose(found, 0.1 * g + 0.9 * m, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_every_contender_updates_every_parameter(name, params):
    rule, rates = RULES[name]
    updates = last_updates(optax.with_extra_args_support(rule(rates[0])), params)
    assert all(np.any(u) and np.all(np.isfinite(u)) for u in updates.values())


def test_cells_name_a_task_and_a_size():
    assert len(CELLS) == 6 and {cell.rsplit("_", 1)[0] for cell in CELLS} == set(TASKS)
    assert muon_direction(MOMENTUM, RMS)


def test_cells_name_their_contenders():
    assert set(cell_rates("digits_32")) == set(RULES)
    assert set(cell_rates("digits_32_seconds")) == {"nadam", "adam"}
    assert cell_rates("digits_32_seconds")["nadam"] == RULES["nadam"][1]
    fine = cell_rates("characters_32_fine")
    assert set(fine) == {"gate_muon", "muon"} and set(fine.values()) == {FINE_RATES}
    assert max(np.diff(np.log(FINE_RATES))) < 0.5 < min(np.diff(np.log(RULES["muon"][1])))
    cells = [cell for cell in CELLS + MORE_CELLS if not cell.startswith("digits")]  # scikit-learn's
    assert {cell_task(cell).settings["hidden"] for cell in cells} == {32, 128}


def test_stars_are_corrected_for_all_entries(monkeypatch):
    losses = {"gate_muon": [1.0, 1.1, 1.2], "far": [2.0, 2.3, 2.3], "near": [1.105, 1.344, 1.394]}
    monkeypatch.setattr(gate_muon_table, "last_losses", lambda cell: losses)
    assert gate_muon_table.ratio_rows(["a"], ["near"]) == [["near", "1.16 *"]]
    far, near = gate_muon_table.ratio_rows(["a", "b"], ["far", "near"])
    assert far == ["far", "2.00 *", "2.00 *"] and near == ["near", "1.16", "1.16"]


def test_page_has_tables_of_pairs():
    page = (RECORDS.parent / "gate_muon.md").read_text("utf-8")
    assert cells_with_records() == list(CELLS) and pairs_table() in page
    assert fine_table() in page
