"""An optimizer in a study: its factory, and how trials of it are run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optax

from lstm_optax.records import Record
from lstm_optax.runs.build import named_schedule
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.runs.options import Schedule
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import Trial
from lstm_optax.studies.trial_program import Factory, Layout, TrialProgram
from lstm_optax.studies.trial_runner import TrialRunner, state_bytes_per_parameter
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
        on_evaluation: Callable[[Trial, Record], None] = lambda trial, record: None,
    ):
        self.name, self.factory, self.task, self.log = name, factory, task, log
        self.budget, self.on_evaluation = budget, on_evaluation
        self._runners: dict[tuple[Any, ...], TrialRunner] = {}

    def run(self, trials: Sequence[Trial], until: int | None = None) -> None:
        """Run the trials without an end in the records; see `TrialRunner.run`."""
        groups: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in self.log.unfinished(trials):
            fixed = tuple((n, v) for n, v in trial.hyper.items() if not _is_traced(v))
            groups.setdefault(fixed, []).append(trial)
        for fixed, group in groups.items():
            self._runner(fixed, group).run(group, until)

    @property
    def traces(self) -> int:
        """Number of times that a step was traced."""
        return sum(runner.program.traces for runner in self._runners.values())

    def _runner(self, fixed: tuple[Any, ...], trials: list[Trial]) -> TrialRunner:
        if fixed not in self._runners:
            traced = [name for name, value in trials[0].hyper.items() if _is_traced(value)]
            factory = partial(self.factory, **dict(fixed))
            options = dict(traced=traced, trials=len(trials), layout=self.budget.layout)
            program = TrialProgram(self.task, factory, **options)
            self._record_optimizer(program)
            self._runners[fixed] = TrialRunner(
                program,
                self.log,
                steps=self.budget.steps,
                eval_every=self.budget.eval_every,
                on_evaluation=self.on_evaluation,
            )
        return self._runners[fixed]

    def _record_optimizer(self, program: TrialProgram) -> None:
        try:
            state = program.abstract_state()
        except (ValueError, TypeError) as error:
            raise StudyError(f"{self.name} cannot be trained here: {error}") from error
        facts = dict(optimizer=self.name, layout=program.layout, slots=program.slots)
        bytes_each = state_bytes_per_parameter(state)
        self.log.add({"record": "optimizer", **facts, "state_bytes_per_parameter": bytes_each})


def optimizer_factory(
    optimizer: str | Factory,
    *,
    schedule: Schedule,
    steps: int,
    warmup: int = 0,
    clip: float = 1.0,
    settings: Mapping[str, Any] | None = None,
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

    Raises:
      OptionError: an unknown name.
    """
    shared = dict(settings or {})
    if not isinstance(optimizer, str):
        return partial(optimizer, **shared) if shared else optimizer
    make, largest = find_factory(optimizer, given=shared), clip
    clips_itself = "clip" in make.hyper_parameters

    def factory(learning_rate: Any, **hyper: Any) -> optax.GradientTransformation:
        largest_norm = largest if clips_itself else hyper.pop("clip", largest)
        rate = named_schedule(schedule, learning_rate, steps, warmup)
        no_clip = isinstance(largest_norm, int | float) and largest_norm == 0
        links = [] if no_clip else [clip_by_global_norm(largest_norm)]
        return optax.chain(*links, make(rate, **shared | hyper))

    return factory


def _is_traced(value: Any) -> bool:
    """Return whether a value is a number that changes nothing but numbers in the program."""
    return isinstance(value, float)
