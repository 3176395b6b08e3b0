"""`compare`: several optimizers on a task, each tuned with an equal budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from lstm_optax.checks import check_integer
from lstm_optax.names import default_rates
from lstm_optax.runs.options import Schedule
from lstm_optax.studies._sweep import (
    make_budget,
    make_tuning,
    open_log,
)
from lstm_optax.studies.contender import Contender, optimizer_factory
from lstm_optax.studies.study_records import StudyError, StudyRecords
from lstm_optax.studies.trial import REPORT, TUNING_SEED, check_grid, make_trials
from lstm_optax.studies.trial_program import Factory, Layout
from lstm_optax.studies.trial_runner import OnEvaluation
from lstm_optax.studies.tuning import Grid, tune
from lstm_optax.tasks import Task


@dataclass(frozen=True)
class CompareResult:
    """The result of a comparison.

    Attributes:
      records: of all trials.
      folder: of the records; None if they are in memory only.
      traces: number of times that a training step was traced, for each optimizer.
    """

    records: StudyRecords
    folder: Path | None
    traces: dict[str, int]


def compare(
    task: Task,
    optimizers: Sequence[str] | Mapping[str, str | Factory],
    *,
    grids: Mapping[str, Grid] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 5,
    tuning_seeds: int = 1,
    steps: int | None = None,
    eval_every: int | None = None,
    schedule: Schedule = "cosine",
    warmup: int = 0,
    clip: float = 1.0,
    extensions: int = 2,
    halving: int = 0,
    layout: Layout = "auto",
    out: str | PathLike[str] | None = None,
    command: str = "",
    on_evaluation: OnEvaluation = lambda trial, record: None,
) -> CompareResult:
    """Tune each optimizer with an equal budget, then train it with fresh seeds.

    Every grid has the same number of settings. The task's `metric` selects on seeds from 1000 on;
    `test_metric` is reported on the seeds 0, 1, …. An optimizer whose best rate is at the edge of
    all tried rates is reported as void.

    Args:
      task: what is trained.
      optimizers: names that `explain` accepts, or optimizers by a name of your own; a function is
        one of keyword arguments, as for `sweep`.
      grids: the grid of an optimizer, by its name here; by default five rates that suit it.
      settings: hyper-parameters that all trials of an optimizer share, by its name here.
      seeds: fresh seeds for each optimizer, at least 3.
      tuning_seeds: seeds of each setting in the search.
      steps, eval_every, schedule, warmup, clip, extensions, halving, layout: see `sweep`.
      out: folder of the records, in which an interrupted comparison continues; None for none.
      command: for the records.
      on_evaluation: called with the trial and its record after each evaluation.

    Raises:
      StudyError: fewer than two optimizers, fewer than three seeds, grids of several sizes, or what
        `sweep` refuses.
      OptionError: an unknown optimizer or hyper-parameter, or a folder that another process uses.
    """
    budget = make_budget(task, steps, eval_every, layout)
    named = dict(optimizers) if isinstance(optimizers, Mapping) else {o: o for o in optimizers}
    if len(named) < 2:
        got = ", ".join(named) or "none"
        raise StudyError(f"compare needs at least two different optimizers, but got {got}")
    if check_integer("seeds", seeds, 1) < 3:
        raise StudyError(f"seeds is {seeds}, but an interval needs at least 3 fresh seeds")
    if seeds > TUNING_SEED:
        raise StudyError(
            f"seeds is {seeds}, but must be at most {TUNING_SEED}: seeds from there on "
            "choose the hyper-parameters"
        )
    _check_names("grids", grids or {}, named)
    _check_names("settings", settings or {}, named)
    tuning = make_tuning(tuning_seeds, extensions, halving)
    shared = {name: dict((settings or {}).get(name, {})) for name in named}
    checked = {
        name: check_grid(_grid_of(name, optimizer, grids or {}), shared[name])
        for name, optimizer in named.items()
    }
    _check_equal_sizes(checked)
    common = dict(schedule=schedule, warmup=warmup, clip=clip)
    facts: dict[str, Any] = common | dict(halving=halving, tuning_seeds=tuning_seeds)
    facts |= {"settings": shared}
    if halving:  # a trial is stopped because of all others
        facts["grids"] = checked
    facts["rules"] = {n: o if isinstance(o, str) else "a function" for n, o in named.items()}
    options: dict[str, Any] = dict(steps=budget.steps, **common)
    factories = {
        name: optimizer_factory(o, **options, settings=shared[name], searched=checked[name])
        for name, o in named.items()
    }
    log = open_log(out, "compare", task, budget, facts, command)
    with log.hold():
        contenders = {
            name: Contender(name, factory, task, budget, log, on_evaluation)
            for name, factory in factories.items()
        }
        for name, contender in contenders.items():  # all of them before the first one trains
            contender.check(make_trials(name, checked[name], tuning.seeds))
        traces = {}
        for name, contender in contenders.items():
            choice = tune(contender, checked[name], tuning)
            if choice["hyper"]:
                best = {key: (value,) for key, value in choice["hyper"].items()}
                contender.run(make_trials(name, best, range(seeds), REPORT))
            traces[name] = contender.traces
        return CompareResult(log.read(), Path(out) if out is not None else None, traces)


def _grid_of(name: str, optimizer: str | Factory, grids: Mapping[str, Grid]) -> Grid:
    if name in grids:
        return grids[name]
    return {"learning_rate": default_rates(optimizer if isinstance(optimizer, str) else name)}


def _check_names(argument: str, given: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Raise StudyError for a name that is none of the optimizers."""
    if unknown := [name for name in given if name not in named]:
        known = ", ".join(named)
        raise StudyError(f"{argument} has {unknown[0]!r}, but the optimizers are {known}")


def _check_equal_sizes(grids: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Raise StudyError unless all grids have the same number of settings."""
    sizes = {}
    for name, grid in grids.items():
        sizes[name] = 1
        for values in grid.values():
            sizes[name] *= len(values)
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise StudyError(
            f"the grids have different numbers of settings ({shown}), but the budget must be "
            "equal: give all the same number"
        )
