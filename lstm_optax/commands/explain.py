"""The command `lstm-optax explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from lstm_optax.runs.explain_by_name import check_names, explain_optimizers
from lstm_optax.runs.options import OptionError

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Explain:
    """Measure optimizers from outside, as one would filters, and show them side by side.

    Shows steps under a constant gradient, an impulse and a spike, what a cut of the learning rate
    does, the first step against the size of the gradient, and the size and dtypes of the state.
    """

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME [NAME …]", help_behavior_hint="(required)"),
    ]
    """What to measure, such as sgd, presets.torch.NAdam, optax.adam or optax.contrib.muon."""

    learning_rate: float = 1e-3
    """The learning rate that each is built with, above 0; steps are shown in units of it."""

    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw the responses into this file: .png, .svg or .pdf."""

    def run(self, console: Console) -> int:
        """Measure, print the table and the notes, and draw the picture; return the exit status."""
        self._check()
        responses = explain_optimizers(self.names, learning_rate=self.learning_rate)

        from lstm_optax.response import response_figure, response_notes, response_table

        if not console.is_terminal:
            console.width = 10_000  # nothing is folded
        fit = max(1, (console.width - 26) // 17)  # in one table, without columns too narrow
        for first in range(0, len(responses), fit):
            console.print(response_table(responses[first : first + fit]))
        for note in response_notes(responses):
            console.print(Text(f"\n{note}"), soft_wrap=not console.is_terminal)
        if self.plot:
            try:
                response_figure(responses).savefig(self.plot)
            except OSError as error:
                raise self._unwritable(error.strerror or str(error)) from error
            console.print(Text(f"\ndrawn in {self.plot}"), soft_wrap=True)
        return 0

    def _check(self) -> None:
        """Raise the errors that can be found before JAX takes its time to start."""
        check_names(self.names, self.learning_rate)
        if self.plot is None:
            return
        if self.plot.suffix.lower() not in PICTURES:
            raise OptionError(f"--plot {self.plot} must end in {', '.join(PICTURES)}")
        if not self.plot.parent.is_dir():
            raise self._unwritable(f"there is no folder {self.plot.parent}")
        if self.plot.is_dir():
            raise self._unwritable("it is a folder")

    def _unwritable(self, why: str) -> OptionError:
        return OptionError(f"--plot {self.plot} cannot be written: {why}; name another file")
