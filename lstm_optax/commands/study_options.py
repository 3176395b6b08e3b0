"""Options that `sweep` and `compare` share."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from lstm_optax.commands.output import keep_running
from lstm_optax.commands.signals import STOP
from lstm_optax.names import check_optimizer
from lstm_optax.runs.constraints import (
    CountOrZero,
    NormBound,
    OptionError,
    OptionRange,
    check_fields,
)
from lstm_optax.runs.folder_lock import LOCK_FILE
from lstm_optax.runs.new_folder import make_new_folder, remove_if_empty
from lstm_optax.runs.options import Schedule, Settings
from lstm_optax.studies.study_records import RECORDS_FILE, StudyError
from lstm_optax.studies.task_lookup import NAMED_TASKS, check_task_name

STUDIES = Path("studies")

TaskName = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME|FILE.py",
        help=f"Task: {', '.join(NAMED_TASKS)}; or a Python file that defines `task`.",
    ),
]
Whole = Annotated[int | None, tyro.conf.arg(metavar="INT"), OptionRange(1, whole=True)]


@dataclass(frozen=True)
class StudyOptions:
    """Options of a study: task, length of a trial, schedule, search and folder."""

    task: TaskName = "characters"

    task_set: Settings = ()
    """Argument of the task's function, such as hidden=64 or csv=FILE; may be repeated."""

    steps: Whole = None
    """Training steps of a trial, a multiple of --eval-every; by default the task's."""

    eval_every: Whole = None
    """Steps between evaluations; by default the task's."""

    schedule: Schedule = "cosine"
    """Learning-rate schedule after the warmup; cosine and linear end at 0."""

    warmup: CountOrZero = 0
    """Steps of linear warmup of the learning rate from 0; fewer than the steps of a trial."""

    clip: NormBound = 1.0
    """Largest norm of the gradient; 0 for no clipping."""

    extensions: CountOrZero = 2
    """Largest number of learning rates to try past the edges of the grid."""

    halving: CountOrZero = 0
    """Successive halving: with N, keep the best 1/N of the settings at each rung; 0 trains all."""

    layout: Literal["auto", "map", "vmap"] = "auto"
    """Trials one after another on each device (map) or stacked (vmap); auto: map on a CPU."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the records and the report; an interrupted study there continues. By default
    studies/TIME."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use very small sizes, to see everything within a minute; the results mean nothing."""

    def check(self) -> None:
        """Raise the errors that can be detected before JAX is imported."""
        check_fields(self)
        check_task_name(self.task)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise StudyError(f"--out {self.out} is a file: name a folder")
        if self.out is not None and self.out.is_dir() and any(self.out.iterdir()):
            own = {"range_test.png", "optuna.db", LOCK_FILE}
            others = {path.name for path in self.out.iterdir()} - own
            if others and not (self.out / RECORDS_FILE).exists():
                raise StudyError(f"--out {self.out} holds other files: name another folder")

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A context with the folder of the study; a new one is removed if it is still empty."""
        folder = self.out or make_new_folder(STUDIES)
        try:
            yield folder
        finally:
            if not self.out:
                remove_if_empty(folder, STUDIES)

    def arguments(self, *, searched: bool = True) -> dict[str, Any]:
        """Return the arguments of `sweep` and `compare` that these options set.

        Args:
          searched: with those of the search of a grid.
        """
        names = ["steps", "eval_every", "schedule", "warmup", "clip", "layout"]
        names += ["extensions", "halving"] if searched else []
        return {name: getattr(self, name) for name in names}


def keep_study(console: Console, folder: Path) -> None:
    """Let a study run on without a screen, and make a signal print how to continue it."""
    keep_running(console)
    has_folder = any(argument.split("=")[0] == "--out" for argument in sys.argv)
    again = command_line() + ("" if has_folder else f" --out {shlex.quote(str(folder))}")
    STOP.last_words = lambda: (
        f"stopped; the finished trials are in {folder}. Continue with:\n  {again}"
        if (folder / RECORDS_FILE).exists()
        else "stopped; no trial has begun"
    )


def command_line() -> str:
    """Return the command of this process, for the records."""
    return shlex.join(["lstm-optax", *sys.argv[1:]])


def check_optimizer_name(name: str) -> None:
    """Raise OptionError for a name that can be known to be wrong before JAX is imported."""
    try:
        check_optimizer(name)
    except ValueError as error:
        raise OptionError(str(error)) from None
