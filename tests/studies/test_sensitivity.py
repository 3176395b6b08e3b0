"""Sensitivity to the learning rate: ranges, areas and shares known by hand."""

import math

import pytest
from made_records import optimizer_record, read_made, study_record, trial_records

from lstm_optax.studies import Metric, rate_sensitivity

LOSS = Metric("validation")
ACCURACY = Metric("validation", larger_is_better=True)


@pytest.fixture
def trials_of(tmp_path):
    """Return a function: values by rate, or trial records, → the trials of one optimizer."""

    def make(values=None, records=()):
        lines = [study_record(), optimizer_record("sgd")]
        for rate, value in (values or {}).items():
            lines += tuned(rate, value)
        lines += [line for group in records for line in group]
        return list(read_made(tmp_path, lines).trials.values())

    return make


def tuned(rate, value, seed=1000, status="finished", part="tuning", **hyper):
    status = "diverged" if value is None else status
    settings = {"learning_rate": rate} | hyper
    value = math.nan if value is None else value
    return trial_records("sgd", settings, seed, [9.0, value], part=part, status=status)


def ends(found):
    return math.log10(found.low), math.log10(found.high)


def test_range_ends_between_rates(trials_of):
    found = rate_sensitivity(trials_of({0.1: 1.2, 0.001: 1.1, 0.01: 1.0}), LOSS)
    assert found.rates == (0.001, 0.01, 0.1) and found.values == (1.1, 1.0, 1.2)
    assert found.best_rate == 0.01 and not found.open_low and not found.open_high
    # the limit 1.05 is half of the way to 1.1, and a quarter of that to 1.2
    assert ends(found) == pytest.approx((-2.5, -1.75))
    assert found.width == pytest.approx(0.75)


def test_range_of_metric_that_rises(trials_of):
    found = rate_sensitivity(trials_of({0.1: 0.64, 0.001: 0.72, 0.01: 0.8}), ACCURACY)
    assert found.best_rate == 0.01
    assert ends(found) == pytest.approx((-2.5, -1.75))


def test_range_of_negative_loss(trials_of):
    found = rate_sensitivity(trials_of({0.001: -1.8, 0.01: -2.0, 0.1: -1.6}), LOSS)
    assert ends(found) == pytest.approx((-2.5, -1.75))


def test_range_passes_over_rates_inside(trials_of):
    values = {1e-4: 2.0, 1e-3: 1.04, 1e-2: 1.0, 1e-1: 1.02, 1.0: 1.08}
    found = rate_sensitivity(trials_of(values), LOSS)
    assert ends(found) == pytest.approx((-3 - 0.01 / 0.96, -0.5))


def test_second_range_does_not_count(trials_of):
    found = rate_sensitivity(trials_of({1e-3: 1.01, 1e-2: 2.0, 1e-1: 1.0, 1.0: 2.0}), LOSS)
    assert found.best_rate == 0.1 and found.width == pytest.approx(0.1)


def test_range_is_open_at_edge(trials_of):
    found = rate_sensitivity(trials_of({0.001: 1.04, 0.01: 1.0, 0.1: 1.1}), LOSS)
    assert (found.open_low, found.open_high) == (True, False)
    assert found.low == 0.001 and found.width == pytest.approx(1.5)


def test_diverged_rate_ends_range(trials_of):
    found = rate_sensitivity(trials_of({0.001: 1.1, 0.01: 1.0, 0.1: None}), LOSS)
    assert found.high == 0.01 and not found.open_high
    assert found.diverged == (0, 0, 1) and found.values[2] == math.inf
    assert found.diverged_share == pytest.approx(1 / 3)


def test_one_diverged_seed_ends_range(trials_of):
    records = [tuned(0.01, 1.0), tuned(0.01, 1.0, 1001), tuned(0.1, 1.0), tuned(0.1, None, 1001)]
    found = rate_sensitivity(trials_of(records=records), LOSS, clip=3.0)
    assert found.high == pytest.approx(0.01) and found.diverged == (0, 1)
    assert found.area == pytest.approx((1.0 + (1.0 + 3.0) / 2) / 2)


def test_range_is_open_next_to_stopped(trials_of):
    records = [tuned(0.001, 1.1, status="stopped"), tuned(0.01, 1.0), tuned(0.1, 1.1)]
    found = rate_sensitivity(trials_of(records=records), LOSS)
    assert (found.open_low, found.open_high) == (True, False)


def test_values_are_means_over_seeds(trials_of):
    records = [tuned(0.01, 1.0), tuned(0.01, 1.2, 1001), tuned(0.1, 2.0), tuned(0.1, 4.0, 1001)]
    assert rate_sensitivity(trials_of(records=records), LOSS).values == (1.1, 3.0)


def test_curve_keeps_other_hyper_parameters(trials_of):
    records = [
        tuned(rate, value, momentum=momentum)
        for momentum, values in ((0.9, (1.0, 1.1)), (0.99, (0.5, None)))
        for rate, value in zip((0.01, 0.1), values, strict=True)
    ]
    hyper = {"learning_rate": 0.01, "momentum": 0.9}
    found = rate_sensitivity(trials_of(records=records), LOSS, hyper=hyper)
    assert found.values == (1.0, 1.1) and found.diverged == (0, 0)
    assert found.diverged_share == 0.25  # of all tuning trials


def test_report_and_interrupted_trials_do_not_count(trials_of):
    records = [tuned(0.01, 1.0), tuned(0.1, 7.0, status=None), tuned(0.001, 1.0, part="report")]
    assert rate_sensitivity(trials_of(records=records), LOSS).rates == (0.01,)
    assert rate_sensitivity(trials_of(records=records)[1:], LOSS) is None


def test_area_by_hand(trials_of):
    trials = trials_of({0.001: 1.1, 0.01: 1.0, 0.1: 1.2, 1.0: None})
    # clipped at 1.15: (1.1 + 1.0) / 2, (1.0 + 1.15) / 2 and 1.15, over three decades
    found = rate_sensitivity(trials, LOSS, clip=1.15)
    assert found.area == pytest.approx((1.05 + 1.075 + 1.15) / 3)
    assert rate_sensitivity(trials, LOSS).area is None


def test_area_weighs_decades(trials_of):
    found = rate_sensitivity(trials_of({0.001: 1.0, 0.01: 1.0, 1.0: 3.0}), LOSS, clip=9.0)
    assert found.area == pytest.approx((1 * 1.0 + 2 * 2.0) / 3)


def test_area_of_metric_that_rises(trials_of):
    found = rate_sensitivity(trials_of({0.01: 0.8, 0.1: None}), ACCURACY, clip=0.5)
    assert found.area == pytest.approx(0.65)


def test_all_rates_diverged(trials_of):
    found = rate_sensitivity(trials_of({0.01: None, 0.1: None}), LOSS, clip=2.0)
    assert found.best_rate is found.low is found.high is found.width is None
    assert found.diverged_share == 1 and found.area == 2.0


def test_one_rate_has_no_width(trials_of):
    found = rate_sensitivity(trials_of({0.01: 1.0}), LOSS, clip=2.0)
    assert found.width == 0 and found.open_low and found.open_high and found.area is None


def test_scaled_losses_keep_range(trials_of):
    values = {1e-4: 2.0, 1e-3: 1.3, 1e-2: 1.0, 1e-1: 1.2}
    found = rate_sensitivity(trials_of(values), LOSS, clip=1.5)
    scaled = trials_of({rate: 8 * value for rate, value in values.items()})
    scaled = rate_sensitivity(scaled[::-1], LOSS, clip=8 * 1.5)
    assert ends(scaled) == pytest.approx(ends(found))
    assert scaled.area == pytest.approx(8 * found.area)
