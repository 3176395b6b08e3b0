"""What a study found for each optimizer, from its records alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from lstm_optax.studies.outcomes import (
    Metric,
    first_at_target,
    has_diverged,
    has_ended,
    value_at_end,
    value_at_seconds,
    worst_value,
)
from lstm_optax.studies.sensitivity import Sensitivity, rate_sensitivity
from lstm_optax.studies.statistics import (
    Estimate,
    PairedTest,
    estimate,
    paired_tests,
    rank_with_ties,
)
from lstm_optax.studies.study_records import StudyRecords, TrialRecords


@dataclass(frozen=True)
class TargetTimes:
    """When the seeds of an optimizer reached the target of the task.

    Attributes:
      steps: of the first evaluation at or beyond the target, for each seed; None if there is none.
      seconds: of the same evaluation.
    """

    steps: tuple[int | None, ...]
    seconds: tuple[float | None, ...]

    @property
    def reached(self) -> int:
        """Number of seeds that reached the target."""
        return sum(step is not None for step in self.steps)

    @property
    def median_steps(self) -> float | None:
        """Median over all seeds; None if too few reached the target."""
        return _median(self.steps)

    @property
    def median_seconds(self) -> float | None:
        """Median over all seeds; None if too few reached the target."""
        return _median(self.seconds)


@dataclass(frozen=True)
class OptimizerSummary:
    """What a study found for one optimizer.

    Attributes:
      optimizer: its name.
      hyper: the chosen hyper-parameters; None before its tuning ends.
      void: why the optimizer has no rank and no tests; None if it has.
      seeds: of the reported trials that ended.
      diverged: whether the trial of each seed diverged; it then counts as `worst`.
      worst: the worst first or last test metric of the reported trials that did not diverge.
      at_equal_steps: the test metric of the seeds after `steps` steps.
      steps: the largest number of steps to which all reported trials came.
      at_equal_seconds: the test metric after `seconds`; None if it has no evaluation by then.
      seconds: the smallest mean duration of an optimizer's reported trials; None if none finished.
      target: when the seeds reached the target on validation data; None without a target.
      sensitivity: to the learning rate, from the tuning trials.
      diverged_share: of all trials that ended, tuning and reported.
      state_bytes_per_parameter: size of the optimizer's state; None if unknown.
      milliseconds_per_step: of the reported trials that did not diverge.
      rank: 1 + the number of optimizers that are better beyond seed noise; None without tests.
    """

    optimizer: str
    hyper: Mapping[str, Any] | None
    void: str | None
    seeds: tuple[int, ...]
    diverged: tuple[bool, ...]
    worst: float
    at_equal_steps: Estimate | None
    steps: int | None
    at_equal_seconds: Estimate | None
    seconds: float | None
    target: TargetTimes | None
    sensitivity: Sensitivity | None
    diverged_share: float
    state_bytes_per_parameter: float | None
    milliseconds_per_step: float | None
    rank: int | None = None


def summarize(
    study: StudyRecords, *, target: float | None = None, level: float = 0.95
) -> list[OptimizerSummary]:
    """Return what a study found, from the best mean to the worst, void optimizers last.

    Args:
      study: from `read_study`; an unfinished one too.
      target: value of the validation metric that counts as solved; by default the task's.
      level: of the intervals.
    """
    context = _Context(study, target, level)
    rows = [context.summarize(name) for name in study.optimizers]
    larger = context.test.larger_is_better
    ranked = [row.optimizer for row in rows if row.void is None]
    tests = paired_differences(rows, level=level)
    if tests or len(ranked) == 1:
        ranks = rank_with_ties(ranked, tests, larger_is_better=larger)
        rows = [replace(row, rank=ranks.get(row.optimizer)) for row in rows]

    def order(row: OptimizerSummary) -> tuple:
        mean = row.at_equal_steps.mean if row.at_equal_steps else context.test.worst
        return row.void is not None, context.test.cost(mean)

    return sorted(rows, key=order)


def paired_differences(
    summaries: Sequence[OptimizerSummary], *, level: float = 0.95
) -> list[PairedTest]:
    """Return the tests of all pairs with a rank at equal steps, over their common seeds.

    If all results are positive, their logarithms are compared: the noise of a loss is roughly
    proportional to the loss. There are no tests with fewer than two common seeds, or if no trial
    finished.
    """
    results = {
        row.optimizer: dict(zip(row.seeds, row.at_equal_steps.values, strict=True))
        for row in summaries
        if row.void is None and row.at_equal_steps is not None
    }
    common = sorted(set.intersection(*map(set, results.values()))) if results else []
    values = {name: [found[seed] for seed in common] for name, found in results.items()}
    every = [value for found in values.values() for value in found]
    if len(common) < 2 or not all(map(math.isfinite, every)):
        return []
    return paired_tests(values, level=level, relative=min(every) > 0)


class _Context:
    """What all optimizers of a study share: metrics, target, steps, seconds, the worst values."""

    def __init__(self, study: StudyRecords, target: float | None, level: float):
        task = study.study["task"]
        self.study, self.level = study, level
        self.target = task["target"] if target is None else target
        larger = task["larger_is_better"]
        self.validation = Metric(task["metric"], larger)
        self.test = Metric(task["test_metric"], larger)
        self.reported = {name: self._reported(name) for name in study.optimizers}
        valid = [name for name in study.optimizers if self._void(name) is None]
        finished = {
            name: [t for t in self.reported[name] if not has_diverged(t, self.test)]
            for name in valid or study.optimizers
        }
        trials = [trial for group in finished.values() for trial in group]
        self.steps = min((trial.evaluations[-1]["step"] for trial in trials), default=None)
        self.seconds = min((_mean_seconds(g) for g in finished.values() if g), default=None)
        everything = [trial for group in self.reported.values() for trial in group]
        self.worst = worst_value(everything, self.test)
        tuning = [trial for trial in study.trials.values() if trial.part == "tuning"]
        self.clip = worst_value(tuning, self.validation)

    def summarize(self, name: str) -> OptimizerSummary:
        """Return the summary of an optimizer, without its rank."""
        reported, choice = self.reported[name], self.study.choices.get(name)
        every = [trial for trial in self.study.trials.values() if trial.optimizer == name]
        ended = [trial for trial in every if has_ended(trial)]
        hyper = (choice["hyper"] or None) if choice else None
        times = [t.end for t in reported if t.end and not has_diverged(t, self.test)]
        seconds, steps = (sum(end[key] for end in times) for key in ("seconds", "step"))
        return OptimizerSummary(
            optimizer=name,
            hyper=hyper,
            void=self._void(name),
            seeds=tuple(trial.seed for trial in reported),
            diverged=tuple(has_diverged(trial, self.test) for trial in reported),
            worst=self.worst,
            at_equal_steps=self._estimate(
                [value_at_end(trial, self.test, self.steps) for trial in reported]
            ),
            steps=self.steps,
            at_equal_seconds=None
            if self.seconds is None
            else self._estimate(
                [value_at_seconds(trial, self.test, self.seconds) for trial in reported]
            ),
            seconds=self.seconds,
            target=self._target_times(reported),
            sensitivity=rate_sensitivity(every, self.validation, hyper=hyper, clip=self.clip),
            diverged_share=fmean(trial.diverged for trial in ended) if ended else 0.0,
            state_bytes_per_parameter=self.study.optimizers[name].get("state_bytes_per_parameter"),
            milliseconds_per_step=1000 * seconds / steps if steps else None,
        )

    def _reported(self, name: str) -> list[TrialRecords]:
        """Return the ended trials at the chosen hyper-parameters, in the order of the seeds."""
        choice = self.study.choices.get(name)
        trials = [
            trial
            for trial in self.study.trials.values()
            if trial.optimizer == name
            and trial.part == "report"
            and has_ended(trial)
            and choice is not None
            and trial.hyper == choice["hyper"]
        ]
        return sorted(trials, key=lambda trial: trial.seed)

    def _void(self, name: str) -> str | None:
        choice = self.study.choices.get(name)
        if choice is None:
            return "its tuning has not ended"
        if choice["value"] is None:
            return "no setting finished without a diverged trial"
        if choice["void"]:
            name = (choice.get("edge_of") or "learning_rate").replace("_", " ")
            return f"its best {name} is at the {choice['edge']} edge of the tried ones"
        return None if self.reported[name] else "no reported trial has ended"

    def _estimate(self, values: Sequence[float | None]) -> Estimate | None:
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        finite = [value if math.isfinite(value) else self.worst for value in known]
        return estimate(finite, level=self.level)

    def _target_times(self, trials: Sequence[TrialRecords]) -> TargetTimes | None:
        if self.target is None:
            return None
        found = [first_at_target(trial, self.validation, self.target) for trial in trials]
        steps = tuple(pair[0] if pair else None for pair in found)
        return TargetTimes(steps, tuple(pair[1] if pair else None for pair in found))


def _mean_seconds(trials: Sequence[TrialRecords]) -> float:
    return fmean(trial.evaluations[-1]["seconds"] for trial in trials)


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median, None counted as infinite; None for an infinite one."""
    found = median(math.inf if value is None else value for value in values) if values else math.inf
    return found if math.isfinite(found) else None
