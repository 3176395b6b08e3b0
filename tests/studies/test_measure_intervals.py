"""What `measure_intervals.py` prints is what docs/compare.md shows."""

import numpy as np
from measure_intervals import coverage, scipy_interval, smallest_difference, t_interval
from write_tables import DOCS

TEXT = (DOCS / "compare.md").read_text("utf-8")


def test_page_has_price_of_correction():
    for seeds in (3, 5, 10):
        cells = [smallest_difference(seeds, optimizers) for optimizers in (2, 3, 4, 16)]
        assert f"| {seeds} | {' | '.join(cells)} |" in TEXT


def test_t_interval_covers_normal_means():
    samples = np.random.default_rng(0).normal(size=(400, 5))
    assert 92 <= int(coverage(t_interval, samples, 0).removesuffix(" %")) <= 98


def test_percentile_interval_is_too_short():
    samples = np.random.default_rng(0).normal(size=(100, 3))
    found = coverage(lambda values: scipy_interval(values, "percentile"), samples, 0)
    assert int(found.removesuffix(" %")) < 85
