"""The progress of a benchmark: a bar on a terminal, a line for each result elsewhere."""

from collections.abc import Mapping
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


class BenchScreen:
    """A display of the row and the measure in progress, and of each result.

    Args:
      console: the console to print to.
      rounds: largest number of rounds of a measure.
    """

    def __init__(self, console: Console, rounds: int):
        self.console = console
        self.bar: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task: TaskID = self.bar.add_task("starting", total=rounds)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def progress(self, row: str, measure: str, activity: str, done: int) -> None:
        """Show the current activity of a measure, and the number of rounds done."""
        self.bar.update(self.task, description=f"{row}, {measure}: {activity}", completed=done)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print a record: the start of a row, or a result."""
        if record["record"] == "row":
            line = f"{record['row']}: {record['about']}, {record['shape']}"
        elif record["record"] == "result":
            line = f"  {record['measure']:<8} {record['contender']:<12} {_format_result(record)}"
        else:
            return
        self.console.print(line, markup=False, soft_wrap=not self.console.is_terminal)


def _format_result(record: Mapping[str, Any]) -> str:
    if "seconds" not in record:
        return record["status"]
    low, median, high = (1e3 * s for s in record["seconds"])
    return f"{median:9.3f} ms ({low:.3f}–{high:.3f})  {record['ratio'][1]:.2f} × ours"
