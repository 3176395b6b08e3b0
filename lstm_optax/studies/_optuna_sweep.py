"""`optuna_sweep`: Optuna chooses the hyper-parameters that are tried next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import jax

from lstm_optax.checks import check_integer
from lstm_optax.records import Record, as_json
from lstm_optax.runs.options import Schedule
from lstm_optax.studies._sweep import (
    OnEvaluation,
    SweepResult,
    make_budget,
    make_tuning,
    open_log,
    optimizer_name,
    result_of,
)
from lstm_optax.studies.contender import Contender, optimizer_factory
from lstm_optax.studies.optuna_study import open_study, quiet_optuna
from lstm_optax.studies.search_space import Space, check_space, edge_of, hyper_of, space_facts
from lstm_optax.studies.trial import make_trials
from lstm_optax.studies.trial_program import STACKED, Factory, Layout
from lstm_optax.tasks import Task

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import Trial


def optuna_sweep(
    task: Task,
    optimizer: str | Factory,
    space: Mapping[str, Sequence[Any]],
    *,
    trials: int = 20,
    seeds: int = 1,
    storage: str | BaseStorage | None = None,
    study_name: str | None = None,
    sampler: BaseSampler | None = None,
    at_once: int | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    steps: int | None = None,
    eval_every: int | None = None,
    schedule: Schedule = "cosine",
    warmup: int = 0,
    clip: float = 1.0,
    layout: Layout = "auto",
    out: str | PathLike[str] | None = None,
    command: str = "",
    on_evaluation: OnEvaluation = lambda trial, record: None,
) -> SweepResult:
    """Train a task with settings that an Optuna sampler chooses, and return the best setting.

    Optuna's storage is the database of the trials: processes with the same storage and study name
    share them, and a second call only runs what is missing. They may share `out` too: each holds
    the folder only while it writes a record. A setting with a trial that diverged is
    stored as pruned, so the sampler avoids its neighbourhood. A setting that was interrupted is
    stored as failed, and does not count.

    The best setting is void if its learning rate, or another value on a log scale, is within 1 % of
    a range's width from an end of the range.

    Args:
      task: what is trained.
      optimizer: a name or a function, as for `sweep`.
      space: by name of the hyper-parameter a range, the tuple (low, high), or a list of choices;
        with a range or choices for "learning_rate". A range has a log scale for the learning rate
        and if high is at least 100 times low, else a linear one.
      trials: settings in the study, those of all processes together; at the end, each process may
        have started some more.
      seeds: seeds of each setting; the sampler receives their mean.
      storage: a URL such as "sqlite:///sweep.db", or a storage object of Optuna; by default
        `optuna.db` in `out`, or memory.
      study_name: in the storage; by default the names of the task and the optimizer.
      sampler: by default a `TPESampler` with a seed, in which the trial's number counts, so that a
        sweep in one process is reproducible and processes do not try the same.
      at_once: settings that the sampler chooses before it sees their results; by default one for
        each slot of the program, and at most a quarter of `trials`.
      settings: hyper-parameters that all trials share.
      name, steps, eval_every, schedule, warmup, clip, layout, out, command, on_evaluation: see
        `sweep`.

    Raises:
      StudyError: a space without learning rate, a range that does not rise, a study in the storage
        with another task or other settings, no Optuna, or the errors of `sweep`.
      OptionError: an unknown optimizer, or a folder that a sweep or a comparison uses.

    Reference: Akiba et al., 2019, arXiv:1907.10902.
    """
    check_integer("trials", trials, 1)
    at_once = None if at_once is None else check_integer("at_once", at_once, 1)
    budget = make_budget(task, steps, eval_every, layout)
    name = optimizer_name(optimizer, name)
    tuning = make_tuning(seeds, extensions=0, halving=0)
    common: dict[str, Any] = dict(schedule=schedule, warmup=warmup, clip=clip)
    factory = optimizer_factory(
        optimizer, steps=budget.steps, settings=settings, searched=space, **common
    )
    with quiet_optuna():
        checked = check_space(space, settings or {})
        facts = dict(common) if isinstance(optimizer, str) else {}
        facts |= {"optimizer": name, "settings": dict(settings or {}), "seeds": seeds}
        facts["rule"] = optimizer if isinstance(optimizer, str) else "a function"
        facts |= {"driver": "optuna", "space": space_facts(space)}
        log = open_log(out, "sweep", task, budget, facts, command)
        contender = Contender(name, factory, task, budget, log, on_evaluation)
        first = {key: values[:1] for key, values in space.items()}
        contender.check(make_trials(name, first, tuning.seeds[:1]))  # before a database is made
        if storage is None and out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            storage = f"sqlite:///{Path(out).resolve() / 'optuna.db'}"
        head = log.read().study
        made_for = {"task": head["task"], "settings": head["settings"]}
        study_name = study_name or f"{task.name}.{name}"
        size = at_once or max(1, min(_slots(layout) // seeds, trials // 4))
        with open_study(storage, study_name, task.larger_is_better, sampler, made_for) as study:
            while (left := trials - len(_ended(study))) > 0:
                _run_batch(study, contender, checked, tuning.seeds, min(left, size))
            choice = _choice(study, name, checked)
        if log.read().choices.get(name) != choice:
            log.add(choice)
    return result_of(choice, contender)


def _slots(layout: Layout) -> int:
    """Return the largest number of slots that a program has, see `TrialProgram`."""
    devices = jax.devices()
    stacked = layout == "vmap" or (layout == "auto" and devices[0].platform != "cpu")
    return len(devices) * (STACKED if stacked else 1)


def _ended(study: Study) -> list[Any]:
    """Return the trials with a result, of all processes."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _run_batch(
    study: Study, contender: Contender, space: Space, seeds: Sequence[int], size: int
) -> None:
    """Ask for some settings, train them, and tell the results; after an error tell failures."""
    from optuna.trial import TrialState

    asked: list[Trial] = []
    try:
        for _ in range(size):
            asked.append(study.ask(space))
        hypers = [hyper_of(trial.params) for trial in asked]
        groups = [
            make_trials(contender.name, {key: (value,) for key, value in hyper.items()}, seeds)
            for hyper in hypers
        ]
        batch = list({t.name: t for group in groups for t in group}.values())
        contender.check(batch)
        contender.run(batch)
        trials = contender.log.read().trials
        for trial, group in zip(asked, groups, strict=True):
            rows = [trials[t.name].evaluations for t in group]
            _tell(study, trial, _means(rows, contender.task.metric), contender.budget.steps)
    finally:
        for trial in asked:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def _tell(study: Study, trial: Trial, means: Mapping[int, float], steps: int) -> None:
    """Tell the mean after the last step; without one, the setting is pruned where it diverged."""
    from optuna.trial import TrialState

    for step, value in means.items():
        trial.report(value, step)
    if steps in means:
        study.tell(trial, means[steps])
    else:
        study.tell(trial, state=TrialState.PRUNED)


def _means(rows: Sequence[Sequence[Record]], metric: str) -> dict[int, float]:
    """Return by step the mean of a metric over the seeds, where all have a finite value."""
    values = [{r["step"]: r[metric] for r in one if r[metric] is not None} for one in rows]
    shared = set(values[0]).intersection(*values[1:])
    return {step: fmean(one[step] for one in values) for step in sorted(shared)}


def _choice(study: Study, name: str, space: Space) -> Record:
    """Return the record of the best setting of the study, of whatever process."""
    ended = _ended(study)
    finite = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = study.best_trial if finite else None
    hyper = hyper_of(best.params) if best else {}
    edge_name, edge = edge_of(space, hyper) if best else (None, "low")
    facts = dict(optimizer=name, hyper=hyper, value=best.value if best else None)
    facts |= dict(edge=edge, edge_of=edge_name, void=edge is not None, trials=len(ended))
    return as_json({"record": "choice", **facts})
