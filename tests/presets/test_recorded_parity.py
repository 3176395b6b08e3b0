"""Each preset equals a recording of its source, so that no source needs to be installed."""

import numpy as np
import pytest
from plain import plain_for
from preset_cases import CASES, Problem, distance, ours, parted
from record import RECORDED, SHAPES

with np.load(RECORDED) as file:
    RECORDS = dict(file)
PROBLEM = {"params", "gradients", "rates", "versions"}
SOURCES = {"torch", "keras"}


def recorded_problem() -> Problem:
    """The problem that the recordings were made on."""
    params = [p[0] for p in parted(RECORDS["params"][None], SHAPES)]
    return Problem(params, parted(RECORDS["gradients"], SHAPES), RECORDS["rates"])


def test_every_case_is_recorded():
    cases = {str(case) for case in CASES if case.source in SOURCES}
    assert set(RECORDS) - PROBLEM == cases
    assert {version.split()[0] for version in RECORDS["versions"]} >= SOURCES


RECORDED = [case for case in CASES if case.source in SOURCES]


@pytest.mark.parametrize("case", plain_for(RECORDED, RECORDED[::2]), ids=str)
def test_equals_recording_of_source(case, x64):
    at = recorded_problem()
    columns = np.concatenate([RECORDS["params"][None], RECORDS[str(case)]])
    error = distance(ours(case, at), parted(columns, SHAPES))
    print(f"{case}: {error:.1e}")
    assert error < 1e-12
