"""`sweep`: the best hyper-parameters of one optimizer on a task."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from lstm_optax.checks import check_choice, check_integer, format_value
from lstm_optax.names import default_rates
from lstm_optax.records import Record
from lstm_optax.runs.options import Schedule
from lstm_optax.studies.contender import Budget, Contender, optimizer_factory
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.study_records import StudyError, StudyRecords
from lstm_optax.studies.trial import TUNING_SEED, check_grid, make_trials
from lstm_optax.studies.trial_program import Factory, Layout
from lstm_optax.studies.trial_runner import OnEvaluation
from lstm_optax.studies.tuning import Grid, Tuning, tune
from lstm_optax.tasks import Task
from lstm_optax.tasks import task as task_module


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
      best: the best hyper-parameters by name; empty if no trial ended finite.
      value: the mean of the task's metric over the seeds at these; None without.
      void: the best learning rate is at the edge of all tried rates, so it is not tuned.
      records: of all trials.
      folder: of the records; None if they are in memory only.
      traces: number of times that a training step was traced.
    """

    best: dict[str, Any]
    value: float | None
    void: bool
    records: StudyRecords
    folder: Path | None
    traces: int


def sweep(
    task: Task,
    optimizer: str | Factory,
    *,
    grid: Grid | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 1,
    name: str | None = None,
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
) -> SweepResult:
    """Train a task with each setting of a grid and each seed, and return the best setting.

    The training is compiled once, whatever the number of trials. A trial with a loss, gradient or
    metric that is not finite is recorded as diverged and takes no more steps.

    Args:
      task: what is trained.
      optimizer: a name that `explain` accepts, or a function of keyword arguments that returns an
        optimizer; `learning_rate` is one of them, and may be traced, as may every float of the
        grid.
      grid: values by name of the hyper-parameter, with "learning_rate" among them; "clip" is the
        largest norm of the gradient. By default five rates that suit the optimizer.
      settings: hyper-parameters that all trials share.
      seeds: seeds of each setting.
      name: of the optimizer in the records; needed for a function.
      steps: of each trial, a multiple of eval_every; by default the task's.
      eval_every: steps between evaluations; by default the task's.
      schedule: of the learning rate, for an optimizer given by name.
      warmup: steps of a linear rise of the rate, for an optimizer given by name.
      clip: largest norm of the gradient, for an optimizer given by name; 0 for no clip.
      extensions: largest number of rates to try past the edges of the grid.
      halving: keep one of this many settings at each rung; 0 trains all settings to the end.
      layout: "map" runs trials one after another on each device, "vmap" stacks up to 32 on each;
        "auto" is "map" on a CPU, else "vmap".
      out: folder of the records, in which an interrupted sweep continues; None for none.
      command: for the records.
      on_evaluation: called with the trial and its record after each evaluation.

    Raises:
      StudyError: an empty grid, a rate that is not above 0, a task that does not work, or a folder
        with another study.
      OptionError: an unknown optimizer or hyper-parameter, or a folder that another process uses.
    """
    budget = make_budget(task, steps, eval_every, layout)
    name = optimizer_name(optimizer, name)
    checked = check_grid(
        grid if grid is not None else {"learning_rate": default_rates(name)}, settings or {}
    )
    tuning = make_tuning(seeds, extensions, halving)
    factory = optimizer_factory(
        optimizer,
        schedule=schedule,
        steps=budget.steps,
        warmup=warmup,
        clip=clip,
        settings=settings,
        searched=checked,
    )
    facts = dict(schedule=schedule, warmup=warmup, clip=clip) if isinstance(optimizer, str) else {}
    facts |= {"optimizer": name, "settings": dict(settings or {}), "halving": halving}
    if halving:  # a trial is stopped because of all others
        facts |= {"seeds": seeds, "grid": checked}
    facts["rule"] = optimizer if isinstance(optimizer, str) else "a function"
    log = open_log(out, "sweep", task, budget, facts, command)
    with log.hold():
        contender = Contender(name, factory, task, budget, log, on_evaluation)
        contender.check(make_trials(name, checked, tuning.seeds))
        choice = tune(contender, checked, tuning)
        return result_of(choice, contender)


def result_of(choice: Record, contender: Contender) -> SweepResult:
    """Return the result of a search, from the record of its choice."""
    log = contender.log
    return SweepResult(
        best=choice["hyper"],
        value=choice["value"],
        void=choice["void"],
        records=log.read(),
        folder=log.path.parent if log.path is not None else None,
        traces=contender.traces,
    )


def optimizer_name(optimizer: str | Factory, name: str | None = None) -> str:
    """Return the name of an optimizer in the records.

    Raises:
      StudyError: a function without a name of its own.
    """
    found = name or (
        optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", "")
    )
    if not found or found == "<lambda>":
        raise StudyError("the optimizer is a function without a name: pass name=…, for the records")
    return found


def make_budget(
    task: Task, steps: int | None, eval_every: int | None, layout: Layout = "auto"
) -> Budget:
    """Return the budget of a trial, and check the task with it.

    Raises:
      StudyError: no task, or one that does not work, or steps are no multiple of eval_every.
      ValueError: a count that is not a whole number above 0, or an unknown layout.
    """
    check_choice("layout", layout, get_args(Layout))
    if not isinstance(task, Task):
        shown = format_value(task)
        raise StudyError(f"task is {shown}, but must be a Task, such as lstm_optax.tasks.digits()")
    steps, every = steps_and_interval(task, steps, eval_every)
    try:
        task.check()
    except Exception as error:
        if traceback.extract_tb(error.__traceback__)[-1].filename == task_module.__file__:
            raise StudyError(f"task {task.name}: {error}") from error
        shown = "".join(traceback.format_exception(error)).rstrip()  # of the user's own function
        raise StudyError(f"task {task.name} failed:\n{shown}") from error
    return Budget(steps, every, layout)


def steps_and_interval(task: Task, steps: int | None, eval_every: int | None) -> tuple[int, int]:
    """Return the steps of a trial, and those between evaluations; None is the task's number.

    The task's interval is shortened to a divisor of the steps, to a quarter at most.

    Raises:
      StudyError: the steps are no multiple of the interval.
      ValueError: a count that is not a whole number above 0.
    """
    steps = check_integer("steps", task.steps if steps is None else steps, 1)
    wanted = check_integer("eval_every", task.eval_every if eval_every is None else eval_every, 1)
    every = min(wanted, steps)
    if eval_every is None:
        every = next(n for n in range(every, 0, -1) if steps % n == 0)
    if steps % every or 4 * every < min(wanted, steps):
        raise StudyError(f"steps is {steps}, but must be a multiple of eval_every, {wanted}")
    return steps, every


def make_tuning(seeds: int, extensions: int, halving: int) -> Tuning:
    """Return how hyper-parameters are chosen, with seeds from TUNING_SEED on.

    Raises:
      ValueError: a count out of range.
    """
    count = check_integer("seeds", seeds, 1)
    check_integer("extensions", extensions, 0)
    if check_integer("halving", halving, 0) == 1:
        raise StudyError("halving is 1, but must be 0 for none, or at least 2")
    return Tuning(tuple(TUNING_SEED + i for i in range(count)), extensions, halving)


def open_log(
    out: str | PathLike[str] | None,
    kind: str,
    task: Task,
    budget: Budget,
    settings: Mapping[str, Any],
    command: str,
) -> StudyLog:
    """Return the log of a study, with facts about the task."""
    facts = dict(name=task.name, settings=dict(task.settings), metric=task.metric)
    facts |= dict(test_metric=task.test_metric, larger_is_better=task.larger_is_better)
    facts |= dict(target=task.target, baselines=dict(task.baselines))
    facts |= dict(steps=budget.steps, eval_every=budget.eval_every)
    folder = Path(out) if out is not None else None
    return StudyLog(folder, kind, facts, dict(settings), command)
