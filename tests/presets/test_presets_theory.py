"""The presets descend, and read their schedules, as every rule does."""

import pytest
import test_descent as descent
import test_schedules as schedules
from presets_table import PRESETS
from test_presets_contract import rows  # noqa: F401 (a fixture: this preset among the rules)

NO_OPTIMIZERS = {"algoperf.clip_gradients"}
OPTIMIZERS = [name for name in PRESETS if name not in NO_OPTIMIZERS]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reaches_the_minima(name):
    descent.test_reaches_the_minima(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_is_its_numbers_step_by_step(name):
    schedules.test_a_schedule_is_its_numbers_step_by_step(name)
