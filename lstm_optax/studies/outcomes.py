"""What a trial came to: its metric at a step or time, and what a diverged trial counts as."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lstm_optax.studies.study_records import TrialRecords


@dataclass(frozen=True)
class Metric:
    """Name and direction of a metric.

    Attributes:
      name: of the metric in the records of evaluations.
      larger_is_better: whether it should rise.
    """

    name: str
    larger_is_better: bool = False

    def cost(self, value: float) -> float:
        """Return the value with the sign for which smaller is better."""
        return -value if self.larger_is_better else value

    @property
    def worst(self) -> float:
        """The infinite value that is worse than all others."""
        return -math.inf if self.larger_is_better else math.inf


def has_ended(trial: TrialRecords) -> bool:
    """Return whether a trial was not interrupted."""
    return trial.end is not None


def has_diverged(trial: TrialRecords, metric: Metric) -> bool:
    """Return whether a trial diverged or ended without a finite metric."""
    return trial.diverged or (has_ended(trial) and _last(trial, metric) is None)


def value_at_end(trial: TrialRecords, metric: Metric, step: int | None = None) -> float:
    """Return the metric of the last evaluation up to a step; of a diverged trial, the worst."""
    if has_diverged(trial, metric):
        return metric.worst
    value = _last(trial, metric, step)
    return metric.worst if value is None else value


def value_at_seconds(trial: TrialRecords, metric: Metric, seconds: float) -> float | None:
    """Return the metric at a time, linear between evaluations; of a diverged trial, the worst.

    After the last evaluation it is the last value; before the first it is unknown, None.
    """
    if has_diverged(trial, metric):
        return metric.worst
    rows = [row for row in trial.evaluations if row.get(metric.name) is not None]
    if not rows or seconds < rows[0]["seconds"]:
        return None
    times, values = ([row[name] for row in rows] for name in ("seconds", metric.name))
    return float(np.interp(seconds, times, values))


def first_at_target(trial: TrialRecords, metric: Metric, target: float) -> tuple[int, float] | None:
    """Return step and seconds of the first evaluation at or beyond a target; None without one."""
    for row in trial.evaluations:
        value = row.get(metric.name)
        if value is not None and metric.cost(value) <= metric.cost(target):
            return row["step"], row["seconds"]
    return None


def worst_value(trials: Iterable[TrialRecords], metric: Metric) -> float:
    """Return what a diverged trial counts as: the worst first or last value of the others.

    Only trials that ended and did not diverge are considered; without any, it is infinite.
    """
    values = [
        row[metric.name]
        for trial in trials
        if has_ended(trial) and not has_diverged(trial, metric)
        for row in (trial.evaluations[0], trial.evaluations[-1])
        if row.get(metric.name) is not None
    ]
    return max(values, key=metric.cost, default=metric.worst)


def _last(trial: TrialRecords, metric: Metric, step: int | None = None) -> float | None:
    rows = [row for row in trial.evaluations if step is None or row["step"] <= step]
    return rows[-1].get(metric.name) if rows else None
