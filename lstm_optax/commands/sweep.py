"""The command `lstm-optax sweep`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from lstm_optax.commands.pictures import save_picture
from lstm_optax.commands.search import parse_space, split_clip
from lstm_optax.commands.study_options import (
    StudyOptions,
    check_optimizer_name,
    command_line,
    keep_study,
)
from lstm_optax.names import default_rates
from lstm_optax.records import core_count
from lstm_optax.runs.constraints import Count, CountOrZero, OptionError
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

    range_test: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train once, for 200 steps by default, with a rising learning rate, draw range_test.png, and
    propose --rates."""

    optuna: CountOrZero = 0
    """Number of settings that Optuna chooses from --space; 0 trains a grid."""

    space: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME=LOW:HIGH"), tyro.conf.UseAppendAction
    ] = ()
    """Range of a hyper-parameter for --optuna, such as b1=0.5:0.99; may be repeated."""

    storage: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Database of --optuna, which several processes can share; by default in the study's folder."""

    def run(self, console: Console) -> int:
        """Run the trials, print the table and write the report; return the exit status."""
        self.config.check()
        check_optimizer_name(self.optimizer)
        self._check_search()
        prepare_devices(0, core_count())

        from lstm_optax.runs.hyper_parameters import parse_settings
        from lstm_optax.studies.task_lookup import find_task

        searched = [text.partition("=")[0] for text in (*self.grid, *self.space)]
        settings = parse_settings(self.optimizer, self.set, searched=searched)
        grid = self._grid(settings)
        with console.status("preparing the task"):
            task = find_task(self.config.task, self.config.task_set, quick=self.config.quick)
        with self.config.folder() as folder:
            keep_study(console, folder)
            if self.range_test:
                return self._run_range_test(console, task, settings, folder)
            return self._run_sweep(console, task, settings, grid, folder)

    def _run_sweep(
        self,
        console: Console,
        task: Any,
        settings: dict[str, Any],
        grid: dict[str, Any],
        folder: Path,
    ) -> int:
        from lstm_optax.commands.study_screen import show_study, study_screen
        from lstm_optax.studies import optuna_sweep, sweep, sweep_grid

        settings_count = self.optuna or math.prod(map(len, grid.values()))
        common: dict[str, Any] = dict(settings=settings, seeds=self.seeds, out=folder)
        trials = self.seeds * settings_count
        with study_screen(console, task, self.config, trials, folder) as screen:
            common |= self.config.arguments(searched=not self.optuna)
            common |= dict(command=command_line(), on_evaluation=screen.evaluation)
            if self.optuna:
                space = parse_space(self.space)
                options: dict[str, Any] = dict(trials=self.optuna, storage=self.storage)
                result = optuna_sweep(task, self.optimizer, space, **options, **common)
            else:
                result = sweep(task, self.optimizer, grid=grid, **common)
        show_study(console, folder, [sweep_grid(result.records)])
        return 0

    def _check_search(self) -> None:
        """Raise OptionError for options that do not belong together."""
        if self.optuna and not self.space:
            raise OptionError("--optuna needs a --space, such as --space learning_rate=1e-4:1e-1")
        for flag, value in (("--space", self.space), ("--storage", self.storage)):
            if value and not self.optuna:
                raise OptionError(f"{flag} needs --optuna, the number of settings to try")
        if self.optuna and (self.rates or self.grid):
            raise OptionError("--optuna searches --space: leave --rates and --grid out")
        if self.optuna and self.range_test:
            raise OptionError("--range-test and --optuna are two searches: pass only one")
        if self.range_test and (self.rates or self.grid or self.seeds > 1):
            raise OptionError("--range-test is one run: leave --rates, --grid and --seeds out")
        if self.config.halving and (self.optuna or self.range_test):
            raise OptionError("--halving belongs to a grid: leave it out")
        parse_space(self.space)

    def _grid(self, settings: dict[str, Any]) -> dict[str, Any]:
        from lstm_optax.runs.hyper_parameters import hyper_parameters_of, parse_grid

        grid: dict[str, Any] = {"learning_rate": self.rates or default_rates(self.optimizer)}
        clips, others = split_clip(self.grid, hyper_parameters_of(self.optimizer))
        return grid | parse_grid(self.optimizer, others, settings=settings) | clips

    def _run_range_test(
        self, console: Console, task: Any, settings: dict[str, Any], folder: Path
    ) -> int:
        from lstm_optax.studies import range_test, range_test_figure

        steps = {} if self.config.steps is None else {"steps": self.config.steps}
        options: dict[str, Any] = dict(clip=self.config.clip, settings=settings, **steps)
        with console.status("training with a rising learning rate"):
            found = range_test(task, self.optimizer, **options)
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / "range_test.png"
        save_picture(range_test_figure(found), picture)
        rates = " ".join(f"{rate:g}" for rate in found.grid)
        proposal = f"proposed: --rates {rates}" if rates else f"no proposal: {found.reason}"
        console.print(f"{proposal}\npicture   {picture}", markup=False, soft_wrap=True)
        return 0
