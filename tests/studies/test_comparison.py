"""What a comparison finds for each optimizer, from records with known numbers."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from made_records import (
    choice_record,
    made_study,
    optimizer_record,
    read_made,
    study_record,
    trial_records,
)

from lstm_optax.studies import paired_differences, summarize
from lstm_optax.studies.statistics import estimate

RATE = {"learning_rate": 0.1}


@pytest.fixture
def summaries_of(tmp_path):
    """Return a function: records, and options of `summarize` → the summaries by optimizer."""

    def make(records, **options):
        found = summarize(read_made(tmp_path, records), **options)
        return {row.optimizer: row for row in found}

    return make


def reported(optimizer, trials, choice=None, **options):
    """The records of an optimizer: a dictionary of the values of each seed's evaluations."""
    records = [optimizer_record(optimizer), choice or choice_record(optimizer, RATE)]
    for seed, values in trials.items():
        records += trial_records(optimizer, RATE, seed, values, **options)
    return records


def diverged(optimizer, seed, values=(7.0, math.nan)):
    return trial_records(optimizer, RATE, seed, list(values), status="diverged")


def two(**task):
    """Two optimizers: "slow" takes 4 seconds for 20 steps, "fast" 3 seconds."""
    slow = reported("slow", {0: [2.0, 1.0], 1: [2.2, 1.2]}, seconds=[2.0, 4.0])
    fast = reported("fast", {0: [3.0, 1.5], 1: [3.0, 1.6]}, seconds=[1.5, 3.0])
    return [study_record(**task), *slow, *fast]


def test_metric_at_equal_steps(summaries_of):
    found = summaries_of(two())
    assert found["slow"].at_equal_steps == estimate([1.0, 1.2])
    assert found["fast"].at_equal_steps == estimate([1.5, 1.6])
    assert found["slow"].steps == 20 and found["slow"].seeds == (0, 1)


def test_metric_at_equal_seconds_is_interpolated(summaries_of):
    found = summaries_of(two())
    assert found["slow"].seconds == found["fast"].seconds == 3.0
    assert found["slow"].at_equal_seconds.values == pytest.approx((1.5, 1.7))
    assert found["fast"].at_equal_seconds.values == pytest.approx((1.5, 1.6))


def test_equal_seconds_are_a_mean_over_seeds(summaries_of):
    records = [study_record(), *reported("sgd", {0: [2.0, 1.0]}, seconds=[1.0, 2.0])]
    records += trial_records("sgd", RATE, 1, [2.0, 1.0], seconds=[2.0, 4.0])
    found = summaries_of(records)["sgd"]
    # the seed that took less than the mean keeps its last value
    assert found.seconds == 3.0 and found.at_equal_seconds.values == (1.0, 1.5)


def test_first_evaluation_after_equal_seconds(summaries_of):
    slow = reported("slow", {0: [2.0, 1.0]}, seconds=[5.0, 9.0])
    fast = reported("fast", {0: [3.0, 1.5]}, seconds=[1.5, 3.0])
    records = [study_record(), *slow, *fast]
    assert summaries_of(records)["slow"].at_equal_seconds is None
    records += trial_records("slow", RATE, 1, [2.0, 1.0], seconds=[1.0, 9.0])
    assert summaries_of(records)["slow"].at_equal_seconds is None, "one seed is unknown"


def test_steps_are_those_all_have(summaries_of):
    long = reported("long", {0: [3.0, 2.0, 1.0], 1: [3.0, 2.5, 1.0]})
    short = reported("short", {0: [3.0, 2.1], 1: [3.0, 2.1]})
    found = summaries_of([study_record(), *long, *short])
    assert found["long"].steps == 20 and found["long"].at_equal_steps.values == (2.0, 2.5)


def test_reports_test_metric(summaries_of):
    records = [study_record(target=1.0), *reported("sgd", {0: [2.0, 1.0]}, test=[5.0, 6.0])]
    found = summaries_of(records)["sgd"]
    assert found.at_equal_steps.values == (6.0,) and found.target.steps == (20,)


def test_steps_and_seconds_to_target(summaries_of):
    trials = {0: [3.0, 0.5, 0.6], 1: [3.0, 2.0, 0.4], 2: [3.0, 2.0, 1.0]}
    records = [study_record(target=0.5), *reported("sgd", trials, seconds=[1.0, 2.0, 3.0])]
    found = summaries_of(records)["sgd"].target
    assert found.steps == (20, 30, None) and found.seconds == (2.0, 3.0, None)
    assert (found.reached, found.median_steps, found.median_seconds) == (2, 30, 3.0)


def test_target_argument_and_none(summaries_of):
    assert summaries_of(two(target=None))["slow"].target is None
    assert summaries_of(two(), target=1.1)["slow"].target.steps == (20, None)
    rising = summaries_of(two(larger_is_better=True), target=2.1)["slow"].target
    assert rising.steps == (None, 10)


def test_half_of_seeds_without_target(summaries_of):
    found = summaries_of(two(target=1.1))["slow"].target
    assert (found.reached, found.median_steps, found.median_seconds) == (1, None, None)


def test_time_per_step_and_state(summaries_of):
    found = summaries_of(two())
    assert found["slow"].milliseconds_per_step == pytest.approx(200)
    assert found["fast"].milliseconds_per_step == pytest.approx(150)
    assert found["slow"].state_bytes_per_parameter == 8


@pytest.mark.parametrize(("larger", "worst"), [(False, 3.0), (True, 1.0)])
def test_diverged_seed_counts_as_worst(summaries_of, larger, worst):
    records = two(larger_is_better=larger) + diverged("fast", 2) + diverged("slow", 2, [math.nan])
    found = summaries_of(records)["fast"]
    assert found.diverged == (False, False, True) and found.worst == worst
    assert found.at_equal_steps.values == (1.5, 1.6, worst)
    assert found.at_equal_seconds.values == (1.5, 1.6, worst)
    assert found.milliseconds_per_step == pytest.approx(150)
    assert found.diverged_share == pytest.approx(1 / 3) and found.steps == 20


def test_missing_test_metric_counts_as_diverged(summaries_of):
    records = two() + trial_records("slow", RATE, 2, [2.0, 1.0], test=[2.0, math.nan])
    assert summaries_of(records)["slow"].diverged == (False, False, True)


def test_seed_can_diverge_after_target(summaries_of):
    records = two(target=2.0) + diverged("slow", 2, [1.9, math.nan])
    assert summaries_of(records)["slow"].target.steps == (10, 20, 10)


def test_all_seeds_of_one_diverged(summaries_of):
    records = [*two(), optimizer_record("lion"), choice_record("lion", RATE)]
    found = summaries_of(records + diverged("lion", 0) + diverged("lion", 1))
    assert found["lion"].at_equal_steps == estimate([3.0, 3.0])
    assert found["lion"].milliseconds_per_step is None and found["fast"].seconds == 3.0


def test_all_trials_diverged(summaries_of):
    records = [study_record(), optimizer_record("a"), optimizer_record("b")]
    for name in "ab":
        records += [choice_record(name, RATE), *diverged(name, 0), *diverged(name, 1)]
    found = summaries_of(records)
    assert [row.rank for row in found.values()] == [None, None]
    assert found["a"].at_equal_steps.mean == math.inf and found["a"].at_equal_seconds is None
    assert math.isnan(found["a"].at_equal_steps.low) and found["a"].worst == math.inf
    assert found["a"].steps is None and paired_differences([*found.values()]) == []


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (
            choice_record("new", RATE, edge="high", void=True),
            "its best learning rate is at the high edge of the tried ones",
        ),
        (
            choice_record("new", {}, value=None, edge="low", void=True),
            "no setting finished without a diverged trial",
        ),
        (choice_record("new", {"learning_rate": 9.0}), "no reported trial has ended"),
        (optimizer_record("new"), "its tuning has not ended"),
    ],
)
def test_void_row_has_reason_and_no_rank(summaries_of, choice, reason):
    new = reported("new", {0: [0.1, 0.1], 1: [0.1, 0.1]}, choice, seconds=[0.1, 0.2])
    found = summaries_of(new[:1] + two() + new)
    assert found["new"].void == reason and found["new"].rank is None
    assert [*found][-1] == "new" and found["slow"].void is None
    assert found["slow"].seconds == 3.0, "a void row changed the equal seconds"
    tests = paired_differences([*found.values()])
    assert [(test.first, test.second) for test in tests] == [("slow", "fast")]


def test_void_row_keeps_its_numbers(summaries_of):
    choice = choice_record("new", RATE, edge="low", void=True)
    new = reported("new", {0: [0.3, 0.1]}, choice)
    assert summaries_of(two() + new)["new"].at_equal_steps.values == (0.1,)


def test_trials_of_older_choice_do_not_count(summaries_of):
    records = two() + trial_records("slow", {"learning_rate": 0.3}, 7, [1.0, 9.0])
    assert summaries_of(records)["slow"].seeds == (0, 1)


def test_interrupted_trial_does_not_count(summaries_of):
    records = two() + trial_records("slow", RATE, 2, [2.0], status=None)
    assert summaries_of(records)["slow"].seeds == (0, 1)


def test_tests_use_common_seeds(summaries_of):
    records = two() + trial_records("slow", RATE, 5, [2.0, 99.0])
    (test,) = paired_differences([*summaries_of(records).values()])
    expected = np.mean(np.log([1.5 / 1.0, 1.6 / 1.2]))
    assert test.relative and abs(test.difference) == pytest.approx(expected)


def test_differences_of_negative_results(summaries_of):
    slow, fast = (
        reported("slow", {0: [2.0, -1.0], 1: [2.2, 1.2]}),
        reported("fast", {0: [3.0, 1.5], 1: [3.0, 1.6]}),
    )
    (test,) = paired_differences([*summaries_of([study_record(), *slow, *fast]).values()])
    assert not test.relative and abs(test.difference) == pytest.approx(1.45)


def test_order_is_by_mean(summaries_of):
    noisy = reported("noisy", {0: [2.0, 0.5], 1: [2.0, 2.0]})
    steady = {
        name: reported(name, {0: [2.0, v], 1: [2.0, v + 0.01]})
        for name, v in (("b", 1.3), ("a", 1.27))
    }
    found = summaries_of([study_record(), *noisy, *steady["b"], *steady["a"]])
    assert [*found] == ["noisy", "a", "b"]


def test_one_seed_has_no_rank(summaries_of):
    records = [study_record(), *reported("a", {0: [2.0, 1.0]}), *reported("b", {0: [2.0, 1.5]})]
    assert [row.rank for row in summaries_of(records).values()] == [None, None]
    assert [*summaries_of(records)] == ["a", "b"]


def test_one_optimizer_is_first(summaries_of):
    assert summaries_of([study_record(), *reported("a", {0: [2.0, 1.0]})])["a"].rank == 1


def test_made_study_is_ranked(summaries_of):
    found = summaries_of(made_study())
    assert {name: row.rank for name, row in found.items()} == {"sgd": 1, "adam": 2, "nadam": 3}
    tied = summaries_of(made_study(spacing=0.0002))
    assert {row.rank for row in tied.values()} == {1}
    rising = summaries_of(made_study(larger_is_better=True, target=0.1))
    assert {name: row.rank for name, row in rising.items()} == {"sgd": 1, "adam": 2, "nadam": 3}
    assert found["sgd"].sensitivity.rates == (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert found["sgd"].sensitivity.diverged == (0, 0, 0, 0, 2)


def test_sensitivity_keeps_chosen_hyper_parameters(summaries_of):
    found = summaries_of(made_study(other={"momentum": (0.9, 0.99)}, noise=0.0))
    assert found["sgd"].sensitivity.values[3] == pytest.approx(0.4, abs=0.002)  # else 0.425


def test_clip_of_area_is_shared(summaries_of):
    found = summaries_of(made_study())
    clip = max(row.sensitivity.values[0] for row in found.values())
    for row in found.values():
        assert row.sensitivity.area < clip
    assert found["adam"].sensitivity.diverged == (0, 0, 0, 2, 2)
    means = [*found["adam"].sensitivity.values[:3], clip, clip]
    # the worst value of any seed is the clip; the mean over its seeds is a little less
    expected = np.trapezoid(means) / 4
    assert found["adam"].sensitivity.area == pytest.approx(expected, abs=0.02)


def test_order_of_records_does_not_matter(summaries_of):
    records = made_study(spacing=0.004)
    head, rest = records[0], records[1:]
    groups = [[r for r in rest if r.get("optimizer", r.get("trial", "")).split()[0] == name]
              for name in ("nadam", "sgd", "adam")]  # fmt: skip
    trials = [r for group in groups for r in group if "trial" in r]
    others = [r for group in groups for r in group if "trial" not in r]
    before, after = summaries_of(records), summaries_of([head, *others, *trials[::-1]])
    for name, row in before.items():
        expected = (row.rank, row.at_equal_steps.mean, row.at_equal_steps.low, row.seconds)
        found = after[name]
        again = (found.rank, found.at_equal_steps.mean, found.at_equal_steps.low, found.seconds)
        assert again == pytest.approx(expected) and found.seeds == row.seeds


def test_scaled_losses_scale_everything(summaries_of):
    records = made_study(spacing=0.004)
    scaled = [
        {k: 8 * v if k in ("validation", "test") and v is not None else v for k, v in r.items()}
        for r in records
    ]
    before, after = summaries_of(records), summaries_of(scaled, target=4.0)
    assert [*before] == [*after]
    for name, row in before.items():
        found = after[name]
        assert found.rank == row.rank and found.target == row.target
        for ours, theirs in zip(
            (found.at_equal_steps, found.at_equal_seconds),
            (row.at_equal_steps, row.at_equal_seconds),
            strict=True,
        ):
            assert np.hstack(astuple(ours)) == pytest.approx(8 * np.hstack(astuple(theirs)))
        assert found.sensitivity.width == pytest.approx(row.sensitivity.width)
        assert found.sensitivity.area == pytest.approx(8 * row.sensitivity.area)
