"""Progress display of a run: a bar on a terminal, a line for each record elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

EVENTS = {
    "skipped": "skipped",
    "overflows": "overflows",
    "carry_resets": "carry rows reset",
    "rewinds": "rewinds",
}
"""The counts of a record that are shown unless they are 0, and their words."""


class TrainScreen:
    """Display of the step, the loss, the items per second and the remaining time of a run.

    Args:
      console: the output.
      steps: the last step of the run.
      items: number of items that one step reads.
      unit: unit of the losses, such as "nats"; none by default.
      item_unit: name of the items, in the plural.
    """

    def __init__(
        self,
        console: Console,
        steps: int,
        items: int,
        *,
        unit: str = "",
        item_unit: str = "items",
    ):
        self.console: Console = console
        self.steps: int = steps
        self.items: int = items
        self.unit: str = f" {unit}" if unit else ""
        self.item_unit: str = item_unit
        self.last: tuple[int, float] | None = None  # step and time of the last call
        self.done, self.busy = 0, 0.0  # steps and seconds without compilation and evaluation
        self.recorded: tuple[int, float] | None = None  # step and time of the last record
        self.wide: bool = console.width >= 72
        self.bar: Progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            *([BarColumn()] if self.wide else []),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.bar.add_task("compiling", total=steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, step: int) -> None:
        """Show the bar before the first step of a new or resumed run."""
        self.bar.reset(self.task, completed=step)
        self.bar.start()

    def progress(self, step: int, loss: float) -> None:
        """Show the step that was completed last, and its loss."""
        now = time.perf_counter()
        if self.last:
            self.done: int = self.done + max(step - self.last[0], 0)  # less after a rewind
            self.busy: float = self.busy + now - self.last[1]
        self.last = (step, now)
        text = f"loss {_format_loss(loss)}{self.unit}"
        if self.wide:
            text += f"  {self._format_speed()}"
        self.bar.update(self.task, completed=step, description=text)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print a record, above the bar on a terminal."""
        losses = [_format_loss(record[name]) for name in ("train_loss", "val_loss")]
        line = f"step {record['step']:>6,}  training {losses[0]}  validation {losses[1]}{self.unit}"
        if record.get("perplexity"):
            line += f"  perplexity {_format_loss(record['perplexity'])}"
        for name, words in EVENTS.items():
            if count := record.get(name):
                line += f"  {words} {count:,}"
        if not self.console.is_terminal and self.done:
            line += f"  {self._format_speed()}"
        now, step = time.perf_counter(), record["step"]
        if not self.console.is_terminal and self.recorded:
            # seconds per step, evaluation included
            per_step = (now - self.recorded[1]) / max(step - self.recorded[0], 1)
            line += f"  {per_step * (self.steps - step):,.0f} s left"
        self.console.print(line, soft_wrap=not self.console.is_terminal)
        self.recorded = self.last = (step, now)

    def _format_speed(self) -> str:
        if not self.done:
            return ""
        return f"{self.done / max(self.busy, 1e-9) * self.items:,.0f} {self.item_unit}/s"


def _format_loss(loss: float) -> str:
    """Return a loss with three decimals, or with three digits if it is 1000 or more."""
    return f"{loss:.3f}" if abs(loss) < 1000 else f"{loss:.3g}"
