"""An optimizer in a study: its factory, and how trials of it are run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import optax

from lstm_optax.checks import BOUND, check_choice, check_integer
from lstm_optax.records import Record
from lstm_optax.runs.build import named_schedule
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.runs.options import Schedule
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import Trial, format_setting
from lstm_optax.studies.trial_program import Factory, Layout, TrialProgram
from lstm_optax.studies.trial_runner import (
    OnEvaluation,
    TrialRunner,
    state_bytes_per_parameter,
)
from lstm_optax.tasks import Task
from lstm_optax.transforms import clip_by_global_norm


@dataclass(frozen=True)
class Budget:
    """How long each trial trains, and how trials share the devices."""

    steps: int
    eval_every: int
    layout: Layout = "auto"


class Contender:
    """Runs the trials of one optimizer; a program is compiled once for all its numbers.

    Args:
      name: of the optimizer, for tables and records.
      factory: hyper-parameters by keyword → optimizer.
      task: what is trained.
      budget: of each trial.
      log: receives the records.
      on_evaluation: called with the trial and its record after each evaluation.
    """

    def __init__(
        self,
        name: str,
        factory: Factory,
        task: Task,
        budget: Budget,
        log: StudyLog,
        on_evaluation: OnEvaluation = lambda trial, record: None,
    ):
        self.name: str = name
        self.factory: Factory = factory
        self.task: Task = task
        self.budget: Budget = budget
        self.log: StudyLog = log
        self.on_evaluation: OnEvaluation = on_evaluation
        self._runners: dict[tuple[Any, ...], TrialRunner] = {}

    def run(self, trials: Sequence[Trial], until: int | None = None) -> None:
        """Run the trials without an end in the records; see `TrialRunner.run`."""
        unfinished = {trial.name for trial in self.log.unfinished(trials)}
        for fixed, group in _group_by_fixed(trials).items():
            if missing := [trial for trial in group if trial.name in unfinished]:
                self._runner(fixed, group).run(missing, until)

    def check(self, trials: Sequence[Trial]) -> None:
        """Raise StudyError if the optimizer does not accept the hyper-parameters of a trial."""
        for setting in dict.fromkeys(tuple(trial.hyper.items()) for trial in trials):
            try:  # numbers of a trial are traced in its training, where no rule can check them
                self.factory(**dict(setting))
            except Exception as error:  # Optax's factories raise errors of many types
                shown = format_setting(dict(setting))
                raise StudyError(f"{self.name} does not accept {shown}: {error}") from error
        for fixed, group in _group_by_fixed(trials).items():
            try:
                self._program(fixed, group).trace()
            except Exception as error:  # Optax's rules raise errors of many types
                raise StudyError(f"{self.name} cannot train {self.task.name}: {error}") from error

    @property
    def traces(self) -> int:
        """Number of times that a step was traced."""
        return sum(runner.program.traces for runner in self._runners.values())

    def _runner(self, fixed: tuple[Any, ...], trials: list[Trial]) -> TrialRunner:
        if fixed not in self._runners:
            program = self._program(fixed, trials)
            self._runners[fixed] = TrialRunner(
                program,
                self.log,
                steps=self.budget.steps,
                eval_every=self.budget.eval_every,
                on_evaluation=self.on_evaluation,
                on_compile=partial(self._record_optimizer, program),
            )
        return self._runners[fixed]

    def _program(self, fixed: tuple[Any, ...], trials: Sequence[Trial]) -> TrialProgram:
        return TrialProgram(
            self.task,
            partial(self.factory, **dict(fixed)),
            traced=[name for name, value in trials[0].hyper.items() if _is_traced(value)],
            trials=len(trials),
            layout=self.budget.layout,
        )

    def _record_optimizer(self, program: TrialProgram, compile_seconds: float) -> None:
        state = program.abstract_state()
        facts: Record = dict(optimizer=self.name, layout=program.layout, slots=program.slots)
        facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        facts["state_bytes_per_parameter"] = state_bytes_per_parameter(state)
        facts["compile_seconds"] = round(compile_seconds, 3)
        self.log.add({"record": "optimizer", **facts})


def optimizer_factory(
    optimizer: str | Factory,
    *,
    schedule: Schedule,
    steps: int,
    warmup: int = 0,
    clip: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    searched: Collection[str] = (),
) -> Factory:
    """Return the factory of an optimizer with its schedule and a clip of the gradient's norm.

    Args:
      optimizer: a name, as for `lstm-optax train`; a function is returned with `settings` applied.
      schedule: of the learning rate.
      steps: of a trial.
      warmup: steps of a linear rise of the learning rate.
      clip: largest norm of the gradient; 0 for no clip. A trial may have its own, "clip", which is
        passed to the optimizer instead if that has such an argument.
      settings: hyper-parameters that all trials share.
      searched: names of the hyper-parameters that each trial has.

    Raises:
      OptionError: an unknown name.
      StudyError: a warmup that is not shorter than a trial.
      ValueError: an unknown schedule, a negative clip, or a warmup that is no count.
    """
    check_choice("schedule", schedule, get_args(Schedule))
    check_integer("warmup", warmup, 0)
    BOUND.check(clip=clip)
    if warmup >= steps:
        raise StudyError(f"warmup is {warmup}, but must be less than steps, which is {steps}")
    shared = dict(settings or {})
    if not isinstance(optimizer, str):
        return partial(optimizer, **shared) if shared else optimizer
    make, largest = find_factory(optimizer, given=[*shared, *searched]), clip
    clips_itself = "clip" in make.hyper_parameters

    def factory(learning_rate: Any, **hyper: Any) -> optax.GradientTransformation:
        largest_norm = largest if clips_itself else hyper.pop("clip", largest)
        rate = named_schedule(schedule, learning_rate, steps, warmup)
        no_clip = isinstance(largest_norm, int | float) and largest_norm == 0
        links = [] if no_clip else [clip_by_global_norm(largest_norm)]
        return optax.chain(*links, make(rate, **shared | hyper))

    return factory


def _group_by_fixed(trials: Sequence[Trial]) -> dict[tuple[Any, ...], list[Trial]]:
    """Return the trials by their hyper-parameters that are compiled into the program."""
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        fixed = tuple((n, v) for n, v in trial.hyper.items() if not _is_traced(v))
        groups.setdefault(fixed, []).append(trial)
    return groups


def _is_traced(value: Any) -> bool:
    """Return whether a value is a number that changes nothing but numbers in the program."""
    return isinstance(value, float)
