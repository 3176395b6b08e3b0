"""The command `lstm-optax compare`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from lstm_optax.commands.study_options import (
    StudyOptions,
    check_optimizer_name,
    command_line,
    keep_study,
)
from lstm_optax.records import core_count
from lstm_optax.runs.constraints import Count, OptionError
from lstm_optax.runs.devices import prepare_devices

DEFAULT = ("sgd", "momentum_sgd", "adam", "nadam")


@dataclass(frozen=True)
class Compare:
    """Compare optimizers on a task: tune each with an equal budget, then train with fresh seeds.

    Writes records.jsonl and report.html to the folder. A stopped comparison continues with the same
    command and --out DIR. The table shows means over the fresh seeds with intervals, and which
    differences exceed the noise of the seeds.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME …]")] = (
        DEFAULT
    )
    """Optimizers, such as sgd nadam presets.torch.NAdam; by default sgd momentum_sgd adam nadam."""

    config: tyro.conf.OmitArgPrefixes[StudyOptions] = field(default_factory=StudyOptions)

    rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="RATE [RATE …]")] = ()
    """Learning rates of every optimizer, above 0; by default five that suit each."""

    set: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="OPTIMIZER:NAME=VALUE"), tyro.conf.UseAppendAction
    ] = ()
    """A hyper-parameter of one optimizer, such as adam:b2=0.99; may be repeated."""

    seeds: Count = 5
    """Fresh seeds of each optimizer, at least 3."""

    tuning_seeds: Count = 1
    """Seeds of each setting in the search of the rate, at least 1."""

    def run(self, console: Console) -> int:
        """Run the trials, print the table and write the report; return the exit status."""
        self.config.check()
        if len(dict.fromkeys(self.names)) < len(self.names):
            raise OptionError(f"an optimizer is named twice in {' '.join(self.names)}")
        for name in self.names:
            check_optimizer_name(name)
        given = split_by_optimizer(self.names, self.set)
        prepare_devices(0, core_count())

        from lstm_optax.commands.study_screen import show_study, study_screen
        from lstm_optax.names import default_rates
        from lstm_optax.runs.hyper_parameters import parse_settings
        from lstm_optax.studies import compare, comparison_grid
        from lstm_optax.studies.task_lookup import find_task

        settings = {name: parse_settings(name, texts) for name, texts in given.items()}
        grids = {name: {"learning_rate": self.rates or default_rates(name)} for name in self.names}
        with console.status("preparing the task"):
            task = find_task(self.config.task, self.config.task_set, quick=self.config.quick)
        tried = sum(len(grid["learning_rate"]) * self.tuning_seeds for grid in grids.values())
        trials = tried + self.seeds * len(self.names)
        with self.config.folder() as folder:
            keep_study(console, folder)
            with study_screen(console, task, self.config, trials, folder) as screen:
                options: dict[str, Any] = self.config.arguments()
                result = compare(
                    task,
                    self.names,
                    grids=grids,
                    settings=settings,
                    seeds=self.seeds,
                    tuning_seeds=self.tuning_seeds,
                    **options,
                    out=folder,
                    command=command_line(),
                    on_evaluation=screen.evaluation,
                )
        show_study(console, folder, [comparison_grid(result.records)])
        return 0


def split_by_optimizer(names: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts NAME=VALUE of each optimizer, from texts OPTIMIZER:NAME=VALUE.

    Raises:
      OptionError: a text without an optimizer, or with one that is not compared.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for text in texts:
        name, colon, setting = text.partition(":")
        if not colon:
            raise OptionError(f"--set {text}: name the optimizer as well, as in {names[0]}:{text}")
        if name not in found:
            raise OptionError(
                f"--set {text}: {name} is not compared; these are: {', '.join(names)}"
            )
        found[name].append(setting)
    return found
