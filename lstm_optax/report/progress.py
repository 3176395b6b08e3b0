"""The progress of a run: a bar on a terminal, a line for each record elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainScreen:
    """Shows step, loss, characters per second and time left while a run goes.

    Args:
      console: where to.
      steps: the step the run ends at.
      characters: characters read in one step.
    """

    def __init__(self, console: Console, steps: int, characters: int):
        self.console, self.steps, self.characters = console, steps, characters
        self.first: tuple[int, float] | None = None  # step and time of the first dispatch
        self.speed = 0.0  # steps per second since then: compilation does not count
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[rate]:,.0f} characters/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps, loss=float("nan"), rate=0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def progress(self, step: int, loss: float) -> None:
        """Show that `step` is done, with its loss in nats per character."""
        now = time.perf_counter()
        if self.first is None:
            self.first = (step, now)
            self.bar.start()
        elif step > self.first[0]:
            self.speed = (step - self.first[0]) / (now - self.first[1])
        rate = self.speed * self.characters
        self.bar.update(self.task, completed=step, loss=loss, rate=rate)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a record; above the bar on a terminal."""
        left = (self.steps - record["step"]) / self.speed if self.speed else float("nan")
        losses = f"training {record['train_loss']:.3f}  validation {record['val_loss']:.3f}"
        line = f"step {record['step']:>6,}  {losses}"
        if not self.console.is_terminal:
            line += f"  {self.speed * self.characters:,.0f} characters/s  {left:.0f} s left"
        self.bar.console.print(line)
