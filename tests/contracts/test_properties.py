"""Every property with every row of the table; the slow cases are the variants and the presets."""

import properties as p
import pytest
from plain import cases_of
from table import FIRST, OURS, OWN, PRESETS, SAMPLE, TRANSFORMS

WITHOUT_GATES = TRANSFORMS | OWN | PRESETS
SCALED = {n: row for n, row in OURS.items() if not row.scale.startswith("none: ")}

CASES = [
    *cases_of(p.finite_for_finite_input, OURS, SAMPLE),
    *cases_of(p.updates_follow_the_scale_of_the_gradient, SCALED, FIRST),
    *cases_of(p.permuted_entries_are_permuted_updates, WITHOUT_GATES, FIRST),
    *cases_of(p.state_is_stable, OURS, SAMPLE),
    *cases_of(p.shapes_and_trees_do_not_matter, WITHOUT_GATES),  # op by op
]


@pytest.mark.parametrize("has, row", CASES)
def test_rule_has(has, row):
    has(row)
