"""The command `lstm-optax sweep`."""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.console import Console

from lstm_optax.commands.study_options import StudyOptions, check_optimizer_name, command_line
from lstm_optax.records import core_count
from lstm_optax.runs.constraints import Count, OptionError
from lstm_optax.runs.devices import prepare_devices
from lstm_optax.runs.options import OptimizerName, Settings


@dataclass(frozen=True)
class Sweep:
    """Find the best learning rate, and other hyper-parameters, of one optimizer on a task.

    Writes records.jsonl and report.html to the folder. A stopped sweep continues with the same
    command and --out DIR. A best rate at the edge of the grid widens the grid.
    """

    config: tyro.conf.OmitArgPrefixes[StudyOptions] = field(default_factory=StudyOptions)

    optimizer: OptimizerName = "nadam"
    """Name of an optimizer."""

    rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="RATE [RATE …]")] = ()
    """Learning rates, each above 0; by default five that suit the optimizer."""

    grid: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,…"), tyro.conf.UseAppendAction
    ] = ()
    """Values of another hyper-parameter, or of clip, such as b1=0.9,0.95; may be repeated."""

    set: Settings = ()
    """One value of a hyper-parameter for all trials, such as b2=0.99; may be repeated."""

    seeds: Count = 1
    """Seeds of each setting, at least 1."""

    def run(self, console: Console) -> int:
        """Run the trials, print the table and write the report; return the exit status."""
        config = self.config
        config.check()
        check_optimizer_name(self.optimizer)
        prepare_devices(0, core_count())

        from lstm_optax.commands.study_screen import show_study, study_screen
        from lstm_optax.names import default_rates
        from lstm_optax.runs.hyper_parameters import (
            hyper_parameters_of,
            parse_grid,
            parse_settings,
        )
        from lstm_optax.studies import sweep, sweep_grid
        from lstm_optax.studies.task_lookup import find_task

        settings = parse_settings(self.optimizer, self.set)
        grid = {"learning_rate": self.rates or default_rates(self.optimizer)}
        clips, others = split_clip(self.grid, hyper_parameters_of(self.optimizer))
        grid |= parse_grid(self.optimizer, others, settings=settings) | clips
        with console.status("preparing the task"):
            task = find_task(config.task, config.task_set, quick=config.quick)
        trials = self.seeds * math.prod(map(len, grid.values()))
        folder = config.folder
        with study_screen(console, task, config, trials) as screen:
            result = sweep(
                task,
                self.optimizer,
                grid=grid,
                settings=settings,
                seeds=self.seeds,
                **config.arguments(),
                out=folder,
                command=command_line(),
                on_evaluation=screen.evaluation,
            )
        show_study(console, folder, [sweep_grid(result.records)])
        return 0


def split_clip(
    texts: Sequence[str], known: Container[str]
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Return the grid of the clip in front of the optimizer, and the texts of its own grids.

    Raises:
      OptionError: a value that is not a number above 0.
    """
    others = [text for text in texts if "clip" in known or text.partition("=")[0] != "clip"]
    found = {}
    for text in (text for text in texts if text not in others):
        try:
            values = tuple(float(value) for value in text.partition("=")[2].split(","))
        except ValueError:
            values = (0.0,)
        if not all(0 < value < math.inf for value in values):
            raise OptionError(f"--grid {text}: clips must be numbers above 0, as in clip=0.25,1")
        found["clip"] = values
    return found, others
