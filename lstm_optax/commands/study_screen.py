"""Progress of a study on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from lstm_optax.studies._sweep import steps_and_interval
from lstm_optax.studies.study_grid import StudyGrid, grid_table
from lstm_optax.studies.study_records import RECORDS_FILE
from lstm_optax.studies.trial import Trial


class StudyScreen:
    """A bar of the evaluations on a terminal, and a line for each trial that ends.

    Args:
      console: the output.
      metric: name of the task's metric.
      steps: of a trial.
      evaluations: expected number of them in all.
    """

    def __init__(self, console: Console, metric: str, steps: int, evaluations: int):
        self.console: Console = console
        self.metric: str = metric
        self.steps: int = steps
        self.bar: Progress = Progress(
            TextColumn("evaluations"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.bar.add_task("compiling", total=evaluations)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def evaluation(self, trial: Trial, record: dict[str, Any]) -> None:
        """Show an evaluation."""
        value = record[self.metric]
        shown = "not finite" if value is None else f"{value:.4g}"
        self.bar.update(self.task, advance=1, description=f"{trial.optimizer} {shown}")
        if value is None or record["step"] >= self.steps:
            self.console.print(f"{trial.name}: {self.metric} {shown}", markup=False, soft_wrap=True)


def study_screen(
    console: Console, task: Any, options: Any, trials: int, folder: Path
) -> StudyScreen:
    """Return the screen of a study with a number of trials, and print what is trained.

    Args:
      console: the output.
      task: a `Task`.
      options: a `StudyOptions`.
      trials: expected number of trials.
      folder: of the study, with which an interrupted one continues.
    """
    steps, every = steps_and_interval(task, options.steps, options.eval_every)
    count = f"{trials} trials of {steps:,} steps"
    console.print(f"task {task.name}: {count}, {task.metric} every {every:,}", markup=False)
    console.print(f"folder {folder}", markup=False, soft_wrap=True)
    return StudyScreen(console, task.metric, steps, trials * -(-steps // every))


def show_study(console: Console, folder: Path, grids: Sequence[StudyGrid]) -> None:
    """Print tables, write the report, and print where the files are."""
    from lstm_optax.report import write_report

    if not console.is_terminal:
        console.width = 10_000  # do not wrap lines in a file or a pipe
    for grid in grids:
        console.print("", grid_table(grid))
    with console.status("writing the report"):
        report = write_report(folder)
    console.print(f"\nreport   {report}\nrecords  {folder / RECORDS_FILE}", markup=False)
