"""Handwritten digits of 8 × 8 pixels, read pixel by pixel and row by row."""

from typing import Any

from lstm_optax.reproductions.last_value import last_value
from lstm_optax.reproductions.plan import Group, Options, Plan
from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies.contender import optimizer_factory
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial import REPORT, make_trials
from lstm_optax.tasks import digits

ROWS = {"pixel by pixel": "pixels", "row by row": "rows"}
AT = "test accuracy"
RATE, SIZES = 0.01, dict(hidden=64, steps=3000, eval_every=300)


def make_plan(options: Options) -> Plan:
    """Return the trials: both orders with each seed, with Nadam and a cosine schedule."""
    sizes: dict[str, Any] = dict(hidden=4, steps=2, eval_every=2) if options.quick else SIZES
    make = optimizer_factory("nadam", schedule="cosine", clip=1.0, steps=sizes["steps"])
    rates = {"learning_rate": (RATE,)}
    groups = [
        Group(
            row,
            digits(order=order, **sizes),  # pyright: ignore[reportArgumentType]
            make,
            make_trials(row, rates, range(options.seeds), REPORT),
        )
        for row, order in ROWS.items()
    ]
    return Plan(options.reproduction.name, groups, {"orders": ROWS})


def measure(study: StudyRecords, reproduction: Reproduction) -> dict[tuple[str, str], list[float]]:
    """Return the test accuracies of the seeds after the last step, by order."""
    found: dict[tuple[str, str], list[float]] = {}
    for trial in study.trials.values():
        if trial.end:
            value = last_value(trial, "test_accuracy")
            found.setdefault((trial.optimizer, AT), []).append(value)
    return found
