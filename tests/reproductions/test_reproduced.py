"""Reproduced numbers: intervals, agreement with numbers and bounds, the table."""

import math

import pytest
from scipy.stats import ttest_1samp

from lstm_optax.reproductions import Published, Reproduced, compare_with_published, reproduced_grid
from lstm_optax.reproductions.reproduced import t_interval
from lstm_optax.studies import StudyError, StudyRecords, TrialRecords

VALUES = (1.74, 1.76, 1.73)


def records(losses, kind="reproduce"):
    """Records of deepobs-char-rnn, one epoch of ten steps, with a loss for each seed of Adam."""
    head = {"kind": kind, "task": {"eval_every": 10}}
    head["settings"] = {"reproduction": "deepobs-char-rnn"}
    trials = {
        f"Adam seed={seed}": TrialRecords(
            f"Adam seed={seed}",
            "Adam",
            {"learning_rate": 0.0025},
            seed,
            "report",
            [{"step": 10, "test": loss}],
            {"status": "finished"},
        )
        for seed, loss in enumerate(losses)
    }
    return StudyRecords(head, {}, trials, {})


def test_interval_is_that_of_t_distribution():
    found = t_interval(VALUES)
    expected = ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(sum(VALUES) / 3)


@pytest.mark.parametrize("values", [(1.0,), (1.0, math.nan)])
def test_interval_is_unknown(values):
    found = t_interval(values)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize(
    "relation, value, agrees",
    [
        ("equal", 1.75, True),
        ("equal", 1.8, False),
        ("above", 1.6, True),
        ("above", 1.75, False),
        ("below", 1.8, True),
        ("below", 1.75, False),
    ],
)
def test_agreement_with_number_or_bound(relation, value, agrees):
    number = Published("Adam", "epoch 1", value, relation)
    assert Reproduced("Adam", "epoch 1", t_interval(VALUES), number).agrees is agrees


def test_agreement_needs_interval_and_number():
    assert Reproduced("Adam", "epoch 1", t_interval(VALUES), None).agrees is None
    number = Published("Adam", "epoch 1", 1.7)
    assert Reproduced("Adam", "epoch 1", t_interval([1.7]), number).agrees is None


def test_table_shows_ours_and_published():
    grid = reproduced_grid(records(VALUES))
    assert grid.rows == [["Adam", "epoch 1", "1.74 (1.71–1.78)", "1.75", "-0.007", "yes"]]
    assert "Means of 3 seeds" in grid.notes[1] and "DeepOBS" in grid.notes[0]


def test_diverged_seed_leaves_no_interval():
    (number,) = compare_with_published(records([1.7, None]))
    assert number.agrees is None
    assert reproduced_grid(records([1.7, None])).rows[0][-1] == "—"


def test_unfinished_trials_do_not_count():
    study = records(VALUES)
    trial = study.trials.pop("Adam seed=2")
    study.trials[trial.name] = TrialRecords(
        trial.name, "Adam", trial.hyper, 2, "report", trial.evaluations
    )
    assert compare_with_published(study)[0].ours.values == VALUES[:2]


def test_other_records_are_refused():
    with pytest.raises(StudyError, match="records of a sweep"):
        compare_with_published(records(VALUES, kind="sweep"))
