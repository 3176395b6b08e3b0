"""The presets have the properties of every rule."""

import pytest
import test_properties as properties
from presets_table import PRESETS

PROPERTIES = [
    properties.test_finite_for_finite_input,
    properties.test_answers_to_the_scale_of_the_gradient,
    properties.test_permuted_entries_are_permuted_updates,
    properties.test_state_is_stable,
    properties.test_shapes_and_trees_do_not_matter,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("has", PROPERTIES, ids=lambda test: test.__name__[5:])
def test_has(has, name, monkeypatch):
    monkeypatch.setitem(properties.RULES, name, PRESETS[name])
    has(name)
