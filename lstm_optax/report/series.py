"""The curves of a study: trials that differ in nothing but the seed, and their mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lstm_optax.records import Record
from lstm_optax.studies.outcomes import Metric, value_at_end
from lstm_optax.studies.study_grid import format_value
from lstm_optax.studies.study_records import StudyRecords, TrialRecords

MOST_SETTINGS = 10  # curves of a sweep
MOST_POINTS = 200  # of a curve

Series = dict[str, list[TrialRecords]]
"""Trials by the name of their curve."""


@dataclass(frozen=True)
class TaskFacts:
    """What a report says about the task; the fields are those of `Task`."""

    name: str
    metric: str = "validation"
    test_metric: str = "test"
    larger_is_better: bool = False
    target: float | None = None


def task_facts(study: StudyRecords) -> TaskFacts:
    """Return the facts about a study's task."""
    task = study.study["task"]
    names = TaskFacts.__dataclass_fields__
    return TaskFacts(**{name: task[name] for name in names if name in task})


def make_series(study: StudyRecords) -> Series:
    """Return the trials of each curve.

    A curve is an optimizer at its chosen hyper-parameters, over the reported seeds. Before there
    are any, it is a setting of the hyper-parameters, and only the best ones are drawn.
    """
    reported = [trial for trial in study.trials.values() if trial.part == "report"]
    trials = reported or list(study.trials.values())
    series: Series = {}
    label = _labels(trials)
    for trial in trials:
        name = trial.optimizer if reported else label(trial)
        series.setdefault(name, []).append(trial)
    return series if reported else _best(series, task_facts(study))


def varying_names(trials: Sequence[TrialRecords]) -> list[str]:
    """Return the hyper-parameters that have more than one value, the learning rate first."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in trial.hyper.items():
            values.setdefault(name, set()).add(repr(value))
    found = [name for name, seen in values.items() if len(seen) > 1]
    return sorted(found, key=lambda name: name != "learning_rate")


def curve_rows(series: Mapping[str, Sequence[TrialRecords]], metric: str) -> list[Record]:
    """Return mean, lowest and highest value over the seeds, at each step of each curve.

    A step counts if all seeds have recorded it. The seconds are their mean over the seeds.
    """
    return [row for name, trials in series.items() for row in _rows(name, trials, metric)]


def _labels(trials: Sequence[TrialRecords]) -> Callable[[TrialRecords], str]:
    names = varying_names(trials) or ["learning_rate"]
    several = len({trial.optimizer for trial in trials}) > 1

    def label(trial: TrialRecords) -> str:
        parts = [f"{n}={format_value(trial.hyper[n])}" for n in names if n in trial.hyper]
        return " ".join([trial.optimizer] * several + parts)

    return label


def _best(series: Series, task: TaskFacts) -> Series:
    """Return the series with the best last values, in their order."""

    metric = Metric(task.metric, task.larger_is_better)

    def badness(name: str) -> float:
        return fmean(metric.cost(value_at_end(trial, metric)) for trial in series[name])

    kept = set(sorted(series, key=badness)[:MOST_SETTINGS])
    return {name: trials for name, trials in series.items() if name in kept}


def _rows(name: str, trials: Sequence[TrialRecords], metric: str) -> list[Record]:
    at_step: dict[int, list[Record]] = {}
    for trial in trials:
        for row in trial.evaluations:
            if row.get(metric) is not None:
                at_step.setdefault(row["step"], []).append(row)
    steps = [step for step in sorted(at_step) if len(at_step[step]) == len(trials)]
    rows = []
    for step in _thinned(steps):
        values = [row[metric] for row in at_step[step]]
        seconds = [row["seconds"] for row in at_step[step]]
        rows.append(
            {
                "series": name,
                "step": step,
                "seconds": fmean(seconds),
                "mean": fmean(values),
                "low": min(values),
                "high": max(values),
            }
        )
    return rows


def _thinned(steps: Sequence[int]) -> list[int]:
    """Return at most MOST_POINTS steps, evenly spread, with the first and the last."""
    if len(steps) <= MOST_POINTS:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
