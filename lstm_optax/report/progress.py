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
        self.wide = console.width >= 72
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            *([BarColumn()] if self.wide else []),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("compiling", total=steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, step: int) -> None:
        """Show the bar, before the first step or where a resumed run goes on."""
        self.bar.reset(self.task, completed=step)
        self.bar.start()

    def progress(self, step: int, loss: float) -> None:
        """Show that `step` is done, with its loss in nats per character."""
        now = time.perf_counter()
        if self.first is None:
            self.first = (step, now)
        elif step > self.first[0]:
            self.speed = (step - self.first[0]) / (now - self.first[1])
        shown = f"loss {_short(loss)} nats" + (f"  {self._rate()}" if self.wide else "")
        self.bar.update(self.task, completed=step, description=shown)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a record; above the bar on a terminal."""
        losses = [_short(record[name]) for name in ("train_loss", "val_loss")]
        line = f"step {record['step']:>6,}  training {losses[0]}  validation {losses[1]} nats"
        if record.get("refused"):
            line += f"  refused {record['refused']:,}"
        if not self.console.is_terminal and self.speed:
            left = (self.steps - record["step"]) / self.speed
            line += f"  {self._rate()}  {left:,.0f} s left"
        self.console.print(line, soft_wrap=not self.console.is_terminal)

    def _rate(self) -> str:
        return f"{self.speed * self.characters:,.0f} characters/s"


def _short(loss: float) -> str:
    """Return a loss with three digits after the point, or in all if it is astronomic."""
    return f"{loss:.3f}" if abs(loss) < 1000 else f"{loss:.3g}"
