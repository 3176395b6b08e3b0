"""The presets keep the contracts of every rule."""

import inspect
from importlib import import_module

import pytest
import test_contract as contract
from presets_table import BY_LEAF, PRESETS

from lstm_optax import presets

NOT_SOURCES = {"links"}
NOT_RULES = {"sutskever.eval_params", "sutskever.momentum_schedule"}
CONTRACTS = [
    contract.test_state_tree_never_depends_on_a_number,
    contract.test_numbers_may_be_tracers,
    contract.test_jit_and_scan_equal_the_plain_loop,
    contract.test_inject_hyperparams,
    contract.test_masked_and_partition,
    contract.test_init_from_shapes,
    contract.test_empty_trees_none_leaves_and_scalars,
    contract.test_unknown_extra_arguments,
]
MORE_CONTRACTS = [  # which the links keep, and `optax.chain` with them
    contract.test_vmap_over_parameters,
    contract.test_multi_steps,
    contract.test_donation_and_one_trace,
    contract.test_sharded_parameters,
    contract.test_inside_flax,
]
every_preset = pytest.mark.parametrize("name", PRESETS)


@pytest.fixture(autouse=True)
def rows(name, monkeypatch):
    """The row of this preset among the rules, for the length of a test."""
    if name in PRESETS:
        monkeypatch.setitem(contract.RULES, name, PRESETS[name])
        monkeypatch.setitem(contract.EVERYTHING, name, PRESETS[name])


@pytest.mark.slow
@every_preset
@pytest.mark.parametrize("keeps", CONTRACTS, ids=lambda test: test.__name__[5:])
def test_keeps(keeps, name):
    keeps(name)


@pytest.mark.soak
@every_preset
@pytest.mark.parametrize("keeps", MORE_CONTRACTS, ids=lambda test: test.__name__[5:])
def test_keeps_more(keeps, name):
    keeps(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name not in BY_LEAF])
def test_keeps_flatten(name):
    contract.test_flatten(name)


@pytest.mark.slow
@every_preset
@pytest.mark.parametrize("traced", [False, True])
def test_keeps_dtypes(name, traced):
    contract.test_dtypes_stay(name, traced)


@pytest.mark.slow
@every_preset
@pytest.mark.parametrize("traced", [False, True])
def test_keeps_dtypes_in_double_precision(name, traced, x64):
    contract.test_dtypes_stay_in_double_precision(name, traced, x64)


@pytest.mark.parametrize("name", ["all"])
def test_table_holds_every_preset(name):
    rules = {
        f"{source}.{rule}"
        for source in set(presets.__all__) - NOT_SOURCES
        for rule in import_module(f"lstm_optax.presets.{source}").__all__
    }
    assert {name.split(",")[0] for name in PRESETS} == rules - NOT_RULES


@every_preset
def test_says_where_epsilon_and_the_rate_stand(name):
    source, _, rule = name.split(",")[0].partition(".")
    doc = inspect.getdoc(getattr(import_module(f"lstm_optax.presets.{source}"), rule))
    assert doc and "Reference:" in doc
