"""The table of a sweep: a row for each setting of the hyper-parameters of one optimizer."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lstm_optax.studies.outcomes import Metric, has_diverged, has_ended, value_at_end
from lstm_optax.studies.study_grid import (
    NONE,
    StudyGrid,
    format_number,
    format_value,
    grid_markdown,
)
from lstm_optax.studies.study_records import StudyError, StudyRecords, TrialRecords


def sweep_table(study: StudyRecords, optimizer: str | None = None) -> str:
    """Return the tuning trials of one optimizer in Markdown; see `sweep_grid`."""
    return grid_markdown(sweep_grid(study, optimizer))


def sweep_grid(study: StudyRecords, optimizer: str | None = None) -> StudyGrid:
    """Return a row for each setting, sorted: the metric's mean over the seeds, and its range.

    Args:
      study: from `read_study`, of a sweep or a comparison.
      optimizer: its name; None if the study has only one.

    Raises:
      StudyError: no such optimizer, or several and none named.
    """
    name = _find_optimizer(study, optimizer)
    task = study.study["task"]
    metric = Metric(task["metric"], task["larger_is_better"])
    trials = [t for t in study.trials.values() if t.optimizer == name and t.part == "tuning"]
    names = list(dict.fromkeys(key for trial in trials for key in trial.hyper))
    groups: dict[tuple[str, ...], list[TrialRecords]] = {}
    for trial in sorted(trials, key=lambda trial: _order(trial.hyper, names)):
        setting = tuple(format_value(trial.hyper.get(key)) for key in names)
        groups.setdefault(setting, []).append(trial)
    choice = study.choices.get(name)
    chosen = choice["hyper"] if choice else None
    rows = [
        [*setting, *_cells(group, metric, group[0].hyper == chosen)]
        for setting, group in groups.items()
    ]
    header = [*names, metric.name, "over seeds", "seeds", "note"]
    return StudyGrid(header, rows, [_conclusion(name, choice)])


def _find_optimizer(study: StudyRecords, optimizer: str | None) -> str:
    known = list(study.optimizers)
    if optimizer is None and len(known) == 1:
        return known[0]
    if optimizer is None:
        raise StudyError(
            f"the study has {len(known)} optimizers: name one of {', '.join(known) or 'none'}"
        )
    if optimizer not in known:
        raise StudyError(
            f"the study has no optimizer {optimizer!r}: name one of {', '.join(known)}"
        )
    return optimizer


def _cells(trials: Sequence[TrialRecords], metric: Metric, chosen: bool) -> list[str]:
    """Return mean, range, number of seeds and note of a setting."""
    values = [value_at_end(trial, metric) for trial in trials if has_ended(trial)]
    finite = [value for value in values if math.isfinite(value)]
    mean = fmean(values) if values else math.nan
    lowest, highest = min(finite, default=math.nan), max(finite, default=math.nan)
    extent = f"{format_number(lowest)} to {format_number(highest)}" if len(finite) > 1 else NONE
    diverged = sum(has_diverged(trial, metric) for trial in trials)
    stopped = [t.end["step"] for t in trials if t.end and t.end["status"] == "stopped"]
    notes = ["best"] * chosen
    notes += [f"{diverged} of {len(trials)} diverged"] * (diverged > 0)
    notes += [f"stopped after {max(stopped, default=0)} steps"] * bool(stopped)
    notes += ["not finished"] * any(not has_ended(trial) for trial in trials)
    shown = format_number(mean) if math.isfinite(mean) else NONE
    return [shown, extent, str(len(trials)), ", ".join(notes)]


def _order(hyper: Mapping[str, Any], names: Sequence[str]) -> list[tuple]:
    """Return a key that sorts numbers by value, before other values by their text."""
    values = [hyper.get(name) for name in names]
    return [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in values]


def _conclusion(name: str, choice: Mapping[str, Any] | None) -> str:
    if choice is None:
        return f"The tuning of {name} has not ended."
    if choice["value"] is None:
        return f"The choice for {name} is void: no setting finished without a diverged trial."
    best = ", ".join(f"{key}={format_value(value)}" for key, value in choice["hyper"].items())
    value = format_number(choice["value"])
    if choice["void"]:
        searched = choice.get("edge_of") or "learning_rate"
        return (
            f"The choice for {name} is void: {best} is best with {value}, but at the "
            f"{choice['edge']} edge of the tried values of {searched}. Try values past that edge."
        )
    return f"The best setting of {name} is {best}, with {value}."
