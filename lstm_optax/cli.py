"""The command line: train a model, sample from it."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax.experiments.options import OptionError, SampleConfig, TrainConfig
from lstm_optax.experiments.run_folder import RunFolder


@dataclass(frozen=True)
class Train:
    """Train a character LSTM on a text: by default on the help topics of Python, about a minute.

    Writes metrics.jsonl, loss.png, sample.txt, config.json and checkpoints/ into the run folder.
    Ctrl-C saves a checkpoint and ends; --resume goes on from it.
    """

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    run: Path | None = None
    """Run folder; runs/TIME by default, with --resume the newest in runs/."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with an interrupted run, to the same numbers as an unbroken one."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run that the folder holds."""


@dataclass(frozen=True)
class Sample:
    """Write text with a trained model."""

    config: tyro.conf.OmitArgPrefixes[SampleConfig] = field(default_factory=SampleConfig)

    run: Path | None = None
    """Run folder; the newest in runs/ by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for bad input, 130 if interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True, highlight=False)
    try:
        command = _parse(argv)
        return _train(command) if isinstance(command, Train) else _sample(command)
    except KeyboardInterrupt:
        errors.print("stopped at once; the last checkpoint is where --resume goes on")
        return 130
    except Exception as error:
        message = _users_error(error)
        if message is None:
            raise
        errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        return 2


def _parse(argv: list[str]) -> Train | Sample:
    """Parse the flags; with --resume, a flag that is not given is as the run has it."""
    stored = Train()
    if argv[:1] == ["train"] and "--resume" in argv:
        given = tyro.cli(Train, args=argv[1:], prog="lstm-optax train")
        run = RunFolder(given.run) if given.run else RunFolder.newest()
        stored = Train(config=run.read_config()[0], run=run.path)
    commands = Annotated[
        Annotated[Train, tyro.conf.subcommand("train", default=stored)]
        | Annotated[Sample, tyro.conf.subcommand("sample")],
        tyro.conf.OmitSubcommandPrefixes,
    ]
    return tyro.cli(commands, args=argv, prog="lstm-optax")  # pyright: ignore


def _train(command: Train) -> int:
    command.config.check()
    run = RunFolder(command.run) if command.run else RunFolder.new()
    if run.holds_run() and not (command.resume or command.overwrite):
        run.create(overwrite=False)  # refuses, before JAX takes its time to start
    console = Console(highlight=False)

    from lstm_optax.experiments.train import Observer, train_language_model
    from lstm_optax.report import TrainScreen, draw_losses, loss_table, plan_table

    characters = command.config.batch * command.config.window
    with TrainScreen(console, command.config.steps, characters) as screen, _StopOnSignal() as stop:
        result = train_language_model(
            command.config,
            run.path,
            resume=command.resume,
            overwrite=command.overwrite,
            observer=Observer(
                plan=lambda pairs: console.print(plan_table(pairs), ""),
                warn=lambda text: console.print(f"[yellow]warning:[/] {escape(text)}"),
                progress=screen.progress,
                record=screen.record,
                should_stop=stop.asked,
            ),
        )
    draw_losses(result.records, result.floors, run.picture, title=f"{command.config.optimizer}")
    if result.reason == "interrupted":
        console.print(f"interrupted after step {result.step:,}; a checkpoint is saved. Go on with:")
        console.print(f"  lstm-optax train --run {run.path} --resume", soft_wrap=True)
        return 130
    if result.reason == "patience":
        console.print(f"ended early: no better evaluation in {command.config.patience}")
    if result.best:
        name = f"LSTM, step {result.best['step']:,}"
        console.print(loss_table(result.best["val_loss"], result.floors, name=name))
        text = _write_sample(run, SampleConfig(seed=command.config.seed))
        run.sample.write_text(text + "\n", encoding="utf-8")
        console.print("\n[cyan]a sample[/]", escape(text.strip("\n")), "", sep="\n")
    console.print(plan_table([("files", path) for path in run.files()]))
    return 0


def _sample(command: Sample) -> int:
    command.config.check()
    run = RunFolder(command.run) if command.run else RunFolder.newest()
    run.read_config()
    sys.stdout.write(_write_sample(run, command.config) + "\n")
    return 0


def _write_sample(run: RunFolder, config: SampleConfig) -> str:
    from lstm_optax.experiments.sample import sample_text

    return sample_text(run.path, config)


class _StopOnSignal:
    """Ctrl-C or a termination asks to stop at the next occasion; the second time it stops."""

    def __enter__(self) -> Self:
        self.signals = 0
        self.before = {
            s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        return self.signals > 0

    def _on_signal(self, *_: object) -> None:
        self.signals += 1
        if self.signals > 1:
            raise KeyboardInterrupt


def _users_error(error: Exception) -> str | None:
    """Return the message for an error that the user can mend, None for one of our own."""
    if isinstance(error, OptionError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; checkpoints that are there remain, see --resume"
    from lstm_optax.data import TextError
    from lstm_optax.experiments.train import Diverged
    from lstm_optax.training import CheckpointError

    if isinstance(error, TextError | CheckpointError | Diverged):
        return str(error)
    if "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: take a smaller --batch, --window or --hidden"
    return None
