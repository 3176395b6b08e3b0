"""Choose hyper-parameters: a grid, wider while the best rate is at its edge, or halving."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lstm_optax.records import Record
from lstm_optax.studies.contender import Contender
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial import Trial, make_trials

Grid = Mapping[str, Sequence[Any]]
Setting = tuple[tuple[str, Any], ...]
"""Hyper-parameters of a trial, as pairs of name and value."""


@dataclass(frozen=True)
class Tuning:
    """How hyper-parameters are chosen.

    Attributes:
      seeds: of the trials of each setting.
      extensions: largest number of learning rates to try past the edges of the grid.
      halving: keep one of this many settings at each rung; 0 trains all to the end. The rungs are
        the steps divided by powers of this number (successive halving).

    Reference: Jamieson & Talwalkar, 2016, arXiv:1502.07943.
    """

    seeds: tuple[int, ...]
    extensions: int = 2
    halving: int = 0


def tune(contender: Contender, grid: Grid, tuning: Tuning) -> Record:
    """Run the trials of a grid that are missing, and record and return the choice.

    The best setting has the best mean of the task's metric after the last step. If its learning
    rate is at an edge of the tried rates, the next rate past the edge is tried, at most
    `extensions` times. If it is still at the edge then, or if no trial ended finite, the choice is
    void.
    """
    rates = list(grid["learning_rate"])
    trials = make_trials(contender.name, grid, tuning.seeds)
    _run(contender, trials, tuning)
    for _ in range(tuning.extensions):
        best = _best_setting(contender, trials)
        edge = _edge(rates, best)
        if edge is None:
            break
        rates.append(_rate_past_edge(rates, edge))
        setting = dict(best) if best else {name: values[0] for name, values in grid.items()}
        wider = {name: (value,) for name, value in setting.items()}
        more = make_trials(contender.name, wider | {"learning_rate": rates[-1:]}, tuning.seeds)
        contender.run(more)
        trials += more
    best = _best_setting(contender, trials)
    edge = _edge(rates, best)
    value = _score(contender, contender.log.read(), best, trials) if best else None
    facts = dict(optimizer=contender.name, hyper=dict(best or ()), value=value, edge=edge)
    choice = {"record": "choice", **facts, "void": edge is not None, "trials": len(trials)}
    known = contender.log.read().choices.get(contender.name)
    return known if known is not None and known == choice else contender.log.add(choice)


def rungs(steps: int, eval_every: int, halving: int) -> list[int]:
    """Return the steps at which halving stops settings, and the last step: multiples of eval_every.

    With 0 there is only the last step.
    """
    ends = [steps]
    while halving and ends[0] // halving >= eval_every:
        ends.insert(0, ends[0] // halving // eval_every * eval_every)
    return ends


def _run(contender: Contender, trials: list[Trial], tuning: Tuning) -> None:
    """Run trials to the end, or stop the worse settings at each rung."""
    budget, alive = contender.budget, trials
    *early, _ = rungs(budget.steps, budget.eval_every, tuning.halving)
    for rung in early:
        contender.run(alive, until=rung)
        records = contender.log.read()
        settings = list(dict.fromkeys(_setting(trial) for trial in alive))
        settings.sort(key=lambda s: _rank(contender, records, s, alive, rung))
        kept = set(settings[: math.ceil(len(settings) / tuning.halving)])
        stopped = [trial for trial in alive if _setting(trial) not in kept]
        for trial in contender.log.unfinished(stopped):
            rows = records.trials[trial.name].evaluations
            seconds = next(row["seconds"] for row in rows if row["step"] == rung)
            facts = dict(trial=trial.name, status="stopped", step=rung, seconds=seconds)
            contender.log.add({"record": "end", **facts})
        alive = [trial for trial in alive if _setting(trial) in kept]
    contender.run(alive)


def _setting(trial: Trial) -> Setting:
    return tuple(trial.hyper.items())


def _best_setting(contender: Contender, trials: Sequence[Trial]) -> Setting | None:
    """Return the setting with the best mean at the last step; None if none ended finite."""
    records = contender.log.read()
    settings = dict.fromkeys(_setting(trial) for trial in trials)
    ranks = {s: _rank(contender, records, s, trials) for s in settings}
    finite = [s for s in settings if math.isfinite(ranks[s])]
    return min(finite, key=lambda s: ranks[s], default=None)


def _rank(
    contender: Contender,
    records: StudyRecords,
    setting: Setting,
    trials: Sequence[Trial],
    step: int | None = None,
) -> float:
    """Return a number that is lower for a better setting; infinity if a seed has no value."""
    score = _score(contender, records, setting, trials, step)
    if score is None:
        return math.inf
    return -score if contender.task.larger_is_better else score


def _score(
    contender: Contender,
    records: StudyRecords,
    setting: Setting,
    trials: Sequence[Trial],
    step: int | None = None,
) -> float | None:
    """Return the mean of the metric over the seeds of a setting after a step, by default the last.

    None if a trial of the setting has no finite value there.
    """
    step, metric = step or contender.budget.steps, contender.task.metric
    values = []
    for trial in trials:
        if _setting(trial) == setting:
            rows = records.trials[trial.name].evaluations
            values.append(next((row[metric] for row in rows if row["step"] == step), None))
    return None if None in values or not values else fmean(values)


def _edge(rates: Sequence[float], best: Setting | None) -> str | None:
    """Return the edge of the rates at which the best rate is; the low one if all rates failed."""
    rate = dict(best)["learning_rate"] if best else min(rates)
    return "low" if rate == min(rates) else "high" if rate == max(rates) else None


def _rate_past_edge(rates: Sequence[float], edge: str) -> float:
    """Return the next rate past an edge, at the same ratio as between the two rates there.

    After 1 or 3 times a power of ten, in steps of about half a decade, it is one of these too.
    """
    ordered = sorted(rates, reverse=edge == "low")
    half_decade = 10.0 ** (-0.5 if edge == "low" else 0.5)
    ratio = ordered[-1] / ordered[-2] if len(ordered) > 1 else half_decade
    digits, exponent = f"{ordered[-1]:.5e}".split("e")
    next_ones = {("1.00000", "low"): (3, -1), ("1.00000", "high"): (3, 0)}
    next_ones |= {("3.00000", "low"): (1, 0), ("3.00000", "high"): (1, 1)}
    if (digits, edge) in next_ones and 0.9 < ratio / half_decade < 1.1:
        digit, change = next_ones[digits, edge]
        return float(f"{digit}e{int(exponent) + change}")
    return float(f"{ordered[-1] * ratio:.6g}")
