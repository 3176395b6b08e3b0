"""Every contract with every row of the table, and which of these cases are slow or soak."""

import contracts as c
import derivatives
import inside_flax as flax
import mapped_params
import motion
import pytest
from plain import cases_of
from table import (
    ALL,
    FIRST,
    GATE_RULES,
    OPTAX,
    OPTIMIZERS,
    OURS,
    OWN,
    PRESETS,
    SAMPLE,
    TRANSFORMS,
)

from lstm_optax import transforms
from lstm_optax.names import OPTIMIZER_NAMES
from lstm_optax.optimizers import OPTIMIZERS as FACTORIES

NO_RULES = {"eval_params", "find_states", "global_norm", "report_validation_loss"}
WITHOUT_GATES = TRANSFORMS | OWN | PRESETS
DESCENDING = {n: row for n, row in WITHOUT_GATES.items() if n != "algoperf.clip_gradients"}
SCHEDULED = {n: row for n, row in OURS.items() if motion.scheduled_numbers(row)}
INSIDE_CELL = {n: OURS[n] for n in ("gate_muon", "by_gate, keys", "awd_sgd")}
ONE_GATE_RULE = {"by_gate, keys"}
INSIDE_FLAX = SAMPLE | GATE_RULES.keys()

CASES = [
    *cases_of(c.numbers_may_be_tracers, OURS, SAMPLE),
    *cases_of(c.state_tree_ignores_numbers, OURS, FIRST),
    *cases_of(c.dtypes_stay, OURS, FIRST | GATE_RULES.keys()),
    *cases_of(c.dtypes_stay_in_double_precision, OURS, FIRST),
    *cases_of(c.jit_and_scan_equal_the_loop, ALL, FIRST | OPTAX.keys()),
    *cases_of(c.init_takes_shapes, OURS, FIRST),
    *cases_of(c.empty_nodes_and_scalars_are_taken, OURS, FIRST),
    *cases_of(c.unknown_extra_arguments_are_ignored, OURS, FIRST),
    *cases_of(c.vmap_equals_each_member_alone, OURS, SAMPLE, PRESETS),
    *cases_of(c.injected_hyperparams_equal_numbers, OURS, SAMPLE),
    *cases_of(c.injected_rules_may_be_traced, OURS, OURS),
    *cases_of(c.masked_and_partitioned_branches_move_alone, OURS, SAMPLE | ONE_GATE_RULE),
    *cases_of(c.multi_steps_equal_their_mean, OURS, SAMPLE, PRESETS),
    *cases_of(c.donation_takes_one_trace, OURS, SAMPLE, PRESETS),
    *cases_of(c.moments_are_sharded_like_parameters, OURS, SAMPLE | ONE_GATE_RULE, PRESETS),
    *cases_of(c.complex_numbers_are_refused, OURS, OURS),
    *cases_of(mapped_params.map_params_keeps_the_state, OURS),
    *cases_of(mapped_params.map_params_finds_every_moment, WITHOUT_GATES, WITHOUT_GATES),
    *cases_of(motion.descent_reaches_both_minima, DESCENDING, OWN),
    *cases_of(motion.schedules_equal_their_numbers, SCHEDULED, TRANSFORMS | OWN),
    *cases_of(derivatives.derivatives_of_two_steps, OURS, soak=PRESETS),
    *cases_of(derivatives.derivatives_of_twenty_steps, OURS, {"adam"}, soak=PRESETS),
    *cases_of(flax.dense_layer_equals_the_chain, OPTIMIZERS, OPTIMIZERS),
    *cases_of(flax.lstm_cell_equals_the_chain, INSIDE_CELL, ONE_GATE_RULE),
    *cases_of(flax.every_lstm_equals_the_chain, OURS, soak=OURS.keys() - INSIDE_FLAX),
    *cases_of(flax.every_lstm_equals_the_chain_in_jit, OURS, soak=OURS.keys() - INSIDE_FLAX),
    *cases_of(flax.train_state_equals_the_chain, OURS, soak=PRESETS),
]


@pytest.mark.parametrize("contract, row", CASES)
def test_rule_keeps(contract, row):
    contract(row)


def test_table_holds_every_rule():
    rules = {name for name in transforms.__all__ if not name.endswith("State")} - NO_RULES
    ours = {name.split(",")[0] for name in TRANSFORMS | OWN | GATE_RULES}
    assert ours == rules | {name for name in OPTIMIZER_NAMES if not name.startswith("optax.")}
    assert tuple(FACTORIES) == OPTIMIZER_NAMES
    assert OPTIMIZERS.keys() == FACTORIES.keys() - GATE_RULES.keys()
    assert all(row.make is FACTORIES[name] for name, row in OPTIMIZERS.items())
