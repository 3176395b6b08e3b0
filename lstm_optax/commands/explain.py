"""The command `lstm-optax explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.explain_by_name import check_names, explain_optimizers
from lstm_optax.runs.options import Settings

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Explain:
    """Measure how optimizers respond to test gradients, and compare them in a table.

    Measures the steps for a constant gradient, an impulse and a spike, the effect of a cut of the
    learning rate, the first step as a function of the gradient's size, and the size and dtypes of
    the state.
    """

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME [NAME …]", help_behavior_hint="(required)"),
    ]
    """Optimizers to measure, such as sgd, presets.torch.NAdam, optax.adam or optax.contrib.muon."""

    learning_rate: float = 1e-3
    """Learning rate of every optimizer, above 0; steps are shown in units of it."""

    set: Settings = ()
    """A hyper-parameter of every optimizer, such as b2=0.99; an unknown name lists those known."""

    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Save a picture of the responses to this file: .png, .svg or .pdf."""

    def run(self, console: Console) -> int:
        """Measure, print the table and the notes, and save the picture; return the exit status."""
        self._check()
        responses = explain_optimizers(
            self.names, learning_rate=self.learning_rate, settings=self.set
        )

        from lstm_optax.response import response_figure, response_notes, response_table

        if not console.is_terminal:
            console.width = 10_000  # do not wrap lines in a file or a pipe
        columns = max(1, (console.width - 26) // 17)  # in one table
        for first in range(0, len(responses), columns):
            console.print(response_table(responses[first : first + columns]))
        if self.set:
            console.print(Text(f"\nset: {', '.join(self.set)}"), soft_wrap=not console.is_terminal)
        for note in response_notes(responses):
            console.print(Text(f"\n{note}"), soft_wrap=not console.is_terminal)
        if self.plot:
            try:
                response_figure(responses).savefig(self.plot)
            except OSError as error:
                raise self._plot_error(error.strerror or str(error)) from error
            console.print(Text(f"\nsaved {self.plot}"), soft_wrap=True)
        return 0

    def _check(self) -> None:
        """Raise the errors that can be detected before JAX is imported."""
        check_names(self.names, self.learning_rate, self.set)
        if self.plot is None:
            return
        if self.plot.suffix.lower() not in PICTURES:
            raise OptionError(f"--plot {self.plot} must end in {', '.join(PICTURES)}")
        if not self.plot.parent.is_dir():
            raise self._plot_error(f"the folder {self.plot.parent} does not exist")
        if self.plot.is_dir():
            raise self._plot_error("it is a folder")

    def _plot_error(self, why: str) -> OptionError:
        return OptionError(f"--plot {self.plot} cannot be written: {why}; choose another file")
