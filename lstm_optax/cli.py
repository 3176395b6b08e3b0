"""The command line: train a model, sample from it, explain optimizers, time the layer."""

import errno
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import tyro
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from lstm_optax._version import __version__
from lstm_optax.cli_bench import Bench
from lstm_optax.cli_explain import Explain
from lstm_optax.experiments.devices import prepare_devices
from lstm_optax.experiments.options import OptionError, SampleConfig, TrainConfig
from lstm_optax.experiments.run_folder import RunFolder

if TYPE_CHECKING:
    from lstm_optax.experiments.train import TrainResult

Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Train:
    """Train a character LSTM on a text: by default on the help topics of Python, about a minute.

    Writes metrics.jsonl, loss.png, sample.txt, config.json and checkpoints/ into the run folder;
    with --diagnose also gradients.jsonl and gradients.png.
    Ctrl-C saves a checkpoint and ends; --resume goes on from it.
    """

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    run: Folder = None
    """Run folder; runs/TIME by default, with --resume the newest in runs/."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with an interrupted run, to the same numbers as an unbroken one."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run that the folder holds."""


@dataclass(frozen=True)
class Sample:
    """Write text with a trained model."""

    config: tyro.conf.OmitArgPrefixes[SampleConfig] = field(default_factory=SampleConfig)

    run: Folder = None
    """Run folder; the newest in runs/ by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for bad input, 130 if interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show ends no run
    if argv == ["--version"]:
        print(f"lstm-optax {__version__}")
        return 0
    errors = Console(stderr=True, highlight=False, emoji=False)
    try:
        command = _parse(argv)
        if isinstance(command, Train):
            return _train(command)
        if isinstance(command, Explain | Bench):
            return command.run(Console(highlight=False, emoji=False))
        return _sample(command, errors)
    except KeyboardInterrupt:
        errors.print("stopped at once")
        return 130
    except Exception as error:
        message = _users_error(error)
        if message is None:
            raise
        line = f"[bold red]error:[/] {escape(message)}"
        errors.print(line, soft_wrap=not errors.is_terminal)
        return 2


def _parse(argv: list[str]) -> Train | Sample | Explain | Bench:
    """Parse the flags; with --resume, a flag that is not given is as the run has it."""
    stored = Train()
    if argv[:1] == ["train"] and "--resume" in argv:
        given = tyro.cli(Train, args=argv[1:], prog="lstm-optax train")
        run = RunFolder(given.run) if given.run else RunFolder.newest()
        stored = Train(config=run.read_config()[0], run=run.path)
    commands = Annotated[
        Annotated[Train, tyro.conf.subcommand("train", default=stored)]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Explain, tyro.conf.subcommand("explain")]
        | Annotated[Bench, tyro.conf.subcommand("bench")],
        tyro.conf.OmitSubcommandPrefixes,
    ]
    description = "Train LSTMs with exact optimizers. `lstm-optax --version` prints the version."
    return tyro.cli(commands, args=argv, prog="lstm-optax", description=description)  # pyright: ignore


def _train(command: Train) -> int:
    config = command.config
    run = RunFolder(command.run) if command.run else RunFolder.new()
    _check(command, run)
    prepare_devices(config)
    console = Console(highlight=False, emoji=False)

    from lstm_optax.experiments.train import Diverged, Observer, train_language_model
    from lstm_optax.report import TrainScreen, draw_losses, plan_table

    for name in ("absl", "asyncio"):  # Orbax logs what it also raises, with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    screen = TrainScreen(console, config.steps, config.batch * config.window)
    title = f"{config.optimizer}, learning rate {config.learning_rate:g} {config.schedule}"
    try:
        with screen, _StopOnSignal() as stop:
            result = train_language_model(
                config,
                run.path,
                resume=command.resume,
                overwrite=command.overwrite,
                observer=Observer(
                    plan=lambda pairs: console.print(plan_table(pairs), ""),
                    warn=lambda text: _warn(console, text),
                    begin=screen.begin,
                    progress=screen.progress,
                    record=screen.record,
                    should_stop=stop.asked,
                ),
            )
    except Diverged:
        _draw_gradients(command, run, title)
        raise
    draw_losses(result.records, result.floors, run.picture, title=title)
    _draw_gradients(command, run, title)
    if result.reason == "interrupted":
        console.print(f"interrupted after step {result.step:,}; a checkpoint is saved. Go on with:")
        command_line = f"  lstm-optax train --resume --run {shlex.quote(str(run.path))}"
        console.print(command_line, soft_wrap=True, markup=False)
        return 130
    _show_result(console, command, run, result)
    return 0


def _draw_gradients(command: Train, run: RunFolder, title: str) -> None:
    from lstm_optax.report import draw_gradients

    if command.config.diagnose:
        draw_gradients(run.read_gradients(), run.gradient_picture, title=title)


def _check(command: Train, run: RunFolder) -> None:
    """Raise the errors that can be found before JAX takes its time to start."""
    command.config.check()
    if command.resume and command.overwrite:
        raise OptionError("--resume goes on with a run, --overwrite replaces it: take one of them")
    if command.resume:
        run.check_resume(command.config)
    elif not command.overwrite:
        run.check_free()
    if command.config.text:
        from lstm_optax.data import read_text

        read_text(command.config.text)


def _show_result(console: Console, command: Train, run: RunFolder, result: "TrainResult") -> None:
    from lstm_optax.report import loss_table, plan_table

    if result.reason == "patience":
        console.print(
            f"ended early, after step {result.step:,}: the validation loss has not improved for "
            f"--patience {command.config.patience} evaluations",
            soft_wrap=not console.is_terminal,
        )
    if result.best:
        name = f"LSTM, step {result.best['step']:,}"
        console.print("", loss_table(result.best["val_loss"], result.floors, name=name))
        text = _write_sample(run, SampleConfig(seed=command.config.seed), console)
        run.sample.write_text(text + "\n", encoding="utf-8")
        console.print(Text("\na sample", style="cyan"))
        console.print(Text(text.strip("\n") + "\n"), soft_wrap=not console.is_terminal)
    first, *others = run.files()
    more = f"lstm-optax sample --run {shlex.quote(str(run.path))}"
    rows = [("files", first), *(("", path) for path in others), ("more text", more)]
    console.print(plan_table(rows))


def _sample(command: Sample, errors: Console) -> int:
    run = RunFolder(command.run) if command.run else RunFolder.newest()
    command.config.check(run.read_config()[1]["text"]["vocabulary"])
    sys.stdout.write(_write_sample(run, command.config, errors) + "\n")
    return 0


def _write_sample(run: RunFolder, config: SampleConfig, console: Console) -> str:
    from lstm_optax.experiments.sample import sample_text

    return sample_text(run.path, config, warn=lambda text: _warn(console, text))


def _warn(console: Console, text: str) -> None:
    line = f"[yellow]warning:[/] {escape(text)}"
    console.print(line, soft_wrap=not console.is_terminal)


class _StopOnSignal:
    """Ctrl-C or a termination asks to stop at the next occasion; the second one stops at once."""

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
        if self.signals == 1:
            _tell("stopping after this dispatch; Ctrl-C again stops at once, without saving")
        else:
            _tell("stopped at once; --resume goes on from the last checkpoint")
            os._exit(130)  # an orderly exit would wait for minutes for the threads of Orbax


def _tell(message: str) -> None:
    """Write a line to stderr from a signal handler, where Python's streams may be in use."""
    show_cursor = "\033[?25h" if os.isatty(2) else ""
    os.write(2, f"{show_cursor}\n{message}\n".encode())


def _users_error(error: Exception) -> str | None:
    """Return the message for an error that the user can mend, None for one of our own."""
    if isinstance(error, OptionError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, None)  # None: see Checkpoints.save
        remedy = (
            "make room, and go on with --resume from the last checkpoint"
            if full
            else "check the folder, or name another with --run DIR"
        )
        return f"{place}{error.strerror or error}; {remedy}"
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
        return "out of memory: take a smaller --batch, --window or --hidden"
    from lstm_optax.data import TextError

    if isinstance(error, TextError):
        return str(error)
    from lstm_optax.experiments.train import Diverged
    from lstm_optax.training import CheckpointError

    if isinstance(error, CheckpointError):
        return f"{error}: train anew with --overwrite"
    return str(error) if isinstance(error, Diverged) else None
