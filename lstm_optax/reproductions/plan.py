"""What a reproduction trains: trials in groups, each group with a task and an optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies._sweep import make_budget, open_log
from lstm_optax.studies.contender import Contender
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial import Trial
from lstm_optax.studies.trial_program import Factory
from lstm_optax.studies.trial_runner import OnEvaluation
from lstm_optax.tasks import Task

KIND = "reproduce"
"""The kind of the study in the records."""


@dataclass(frozen=True)
class Options:
    """What the user decides about a reproduction.

    Attributes:
      reproduction: the row of the table.
      data: bytes of the file, if the reproduction needs one.
      seeds: number of seeds, from 0 on.
      epochs: passes over the data; None if the length is fixed.
      quick: use very small sizes.
    """

    reproduction: Reproduction
    data: bytes | None
    seeds: int
    epochs: int | None
    quick: bool = False


@dataclass(frozen=True)
class Group:
    """Trials that share a task and an optimizer.

    Attributes:
      name: of the row, in place of the optimizer's name in the records.
      task: what is trained.
      factory: hyper-parameters of a trial by keyword → optimizer.
      trials: the settings and seeds.
    """

    name: str
    task: Task
    factory: Factory
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Plan:
    """All trials of a reproduction.

    Attributes:
      name: of the reproduction.
      groups: the trials; the first group's task is that of the records.
      settings: what the results depend on besides the task, as JSON.
    """

    name: str
    groups: Sequence[Group]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task of the records."""
        return self.groups[0].task

    @property
    def trials(self) -> int:
        """Number of trials."""
        return sum(len(group.trials) for group in self.groups)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of all trials."""
        each = ((len(group.trials), group.task) for group in self.groups)
        return sum(trials * (task.steps // task.eval_every) for trials, task in each)

    def run(
        self,
        out: Path | None,
        command: str = "",
        on_evaluation: OnEvaluation = lambda trial, record: None,
    ) -> StudyRecords:
        """Run the trials without an end in the records of `out`, and return all records.

        Raises:
          StudyError: the folder holds another study, or a task does not work.
          OptionError: another process uses the folder.
        """
        budgets = [make_budget(group.task, None, None) for group in self.groups]
        settings = {"reproduction": self.name, **self.settings}
        log = open_log(out, KIND, self.task, budgets[0], settings, command)
        with log.hold():
            for group, budget in zip(self.groups, budgets, strict=True):
                contender = Contender(
                    group.name, group.factory, group.task, budget, log, on_evaluation
                )
                contender.check(group.trials)
                contender.run(group.trials)
            return log.read()
