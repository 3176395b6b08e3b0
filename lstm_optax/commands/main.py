"""The command line: train a model, sample from it, explain optimizers, time the layer."""

import contextlib
import errno
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from lstm_optax._version import __version__
from lstm_optax.commands.bench import Bench
from lstm_optax.commands.explain import Explain
from lstm_optax.commands.flags import flags_of, parse_flags, speak_of_flags
from lstm_optax.commands.signals import StopOnSignal
from lstm_optax.runs.devices import prepare_devices
from lstm_optax.runs.options import OptionError, SampleConfig, TrainConfig
from lstm_optax.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from lstm_optax.runs.corpus import Corpus
    from lstm_optax.runs.train import TrainResult

UNIT = "nats per character"  # of the losses

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
            return _train(command, Console(highlight=False, emoji=False))
        if isinstance(command, Explain | Bench):
            return command.run(Console(highlight=False, emoji=False))
        return _sample(command, errors)
    except KeyboardInterrupt:
        errors.print("stopped at once")
        return 130
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 141  # as a program that the signal of a broken pipe ends
    except Exception as error:
        message = _users_error(error)
        if message is None:
            raise
        line = f"[bold red]error:[/] {escape(speak_of_flags(message))}"
        errors.print(line, soft_wrap=not errors.is_terminal)
        return 2


def _parse(argv: list[str]) -> Train | Sample | Explain | Bench:
    """Parse the flags; with --resume, a flag that is not given is as the run has it."""
    stored = Train()
    if argv[:1] == ["train"] and "--resume" in argv:
        given = parse_flags(Train, argv[1:], "lstm-optax train", flags_of(Train))
        run = RunFolder(given.run) if given.run else RunFolder.newest()
        stored = Train(config=_stored_config(run, given.config), run=run.path)
    commands = Annotated[
        Annotated[Train, tyro.conf.subcommand("train", default=stored)]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Explain, tyro.conf.subcommand("explain")]
        | Annotated[Bench, tyro.conf.subcommand("bench")],
        tyro.conf.OmitSubcommandPrefixes,
    ]
    kinds = {"train": Train, "sample": Sample, "explain": Explain, "bench": Bench}
    names = flags_of(kinds[argv[0]]) if argv and argv[0] in kinds else []
    return parse_flags(commands, argv, "lstm-optax", names)


def _stored_config(run: RunFolder, given: TrainConfig) -> TrainConfig:
    """Return the configuration of a run, as far as it holds beside the flags that are given."""
    config, facts = run.read_config()
    if facts["text"].get("stream") and given.text is None:
        raise OptionError(
            f"--resume: the run read its text from a pipe, {config.text}, which cannot be read "
            "again: name a file with the same text with --text FILE, or pipe it in again with "
            "--text /dev/stdin"
        )
    return config if given.epochs is None else replace(config, steps=TrainConfig.steps)


def _train(command: Train, console: Console) -> int:
    corpus, config = _prepare(command, console)
    run = RunFolder(command.run) if command.run else RunFolder.new()
    try:
        return _train_in(run, replace(command, config=config), corpus, console)
    finally:
        if not command.run:
            run.leave_if_empty()


def _train_in(run: RunFolder, command: Train, corpus: "Corpus", console: Console) -> int:
    config = command.config
    prepare_devices(config)

    from lstm_optax.runs import TrainScreen, loss_figure, plan_table
    from lstm_optax.runs.train import Diverged, Observer, train_language_model

    for name in ("absl", "asyncio"):  # Orbax logs what it also raises, with its traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    units: dict[str, Any] = dict(unit="nats", item_unit="characters")
    screen = TrainScreen(console, config.steps, config.batch * config.window, **units)
    title = f"{config.optimizer}, learning rate {config.learning_rate:g} {config.schedule}"
    try:
        with screen, StopOnSignal() as stop:
            result = train_language_model(
                config,
                run.path,
                resume=command.resume,
                overwrite=command.overwrite,
                corpus=corpus,
                observer=Observer(
                    plan=lambda pairs: console.print(plan_table(pairs), ""),
                    count=lambda n: console.print(f"counting n-gram models of {n:,} characters"),
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
    figure = loss_figure(result.records, result.baselines, title=title, unit=UNIT)
    figure.savefig(run.picture)
    _draw_gradients(command, run, title)
    if result.reason == "interrupted":
        console.print(f"interrupted after step {result.step:,}; a checkpoint is saved. Go on with:")
        command_line = f"  lstm-optax train --resume --run {shlex.quote(str(run.path))}"
        command_line += " --text FILE" if corpus.stream else ""
        console.print(command_line, soft_wrap=True, markup=False)
        return 130
    _show_result(console, command, run, result, corpus)
    return 0


def _draw_gradients(command: Train, run: RunFolder, title: str) -> None:
    from lstm_optax.runs import gradient_figure

    if command.config.diagnose:
        gradient_figure(run.read_gradients(), title=title).savefig(run.gradient_picture)


def _prepare(command: Train, console: Console) -> "tuple[Corpus, TrainConfig]":
    """Read the text, and raise what is known to be wrong before JAX takes its time to start."""
    config = command.config
    config.check()
    if command.resume and command.overwrite:
        raise OptionError("--resume goes on with a run, --overwrite replaces it: take one of them")
    if command.run and not command.resume:
        run = RunFolder(command.run)
        run.check_path() if command.overwrite else run.check_free()
    from lstm_optax.runs.corpus import corpus_of, resolve_epochs

    reading = f"reading {config.text}" if config.text else "reading the help topics"
    with console.status(escape(reading)) if console.is_terminal else contextlib.nullcontext():
        corpus = corpus_of(config)
    config = resolve_epochs(config, corpus)
    if command.resume and command.run:
        RunFolder(command.run).check_resume(config)
    return corpus, config


def _show_result(
    console: Console, command: Train, run: RunFolder, result: "TrainResult", corpus: "Corpus"
) -> None:
    from lstm_optax.runs import loss_table, plan_table

    if result.reason == "patience":
        console.print(
            f"ended early, after step {result.step:,}: the validation loss has not improved for "
            f"--patience {command.config.patience} evaluations",
            soft_wrap=not console.is_terminal,
        )
    if result.best:
        name = f"LSTM, step {result.best['step']:,}"
        part = (
            f"n-gram models of the last {corpus.counted:,} of {len(corpus.codes[0]):,} characters"
            if corpus.counted < len(corpus.codes[0])
            else ""
        )
        loss = result.best["val_loss"]
        console.print("", loss_table(loss, result.baselines, name=name, unit=UNIT, caption=part))
        text = _write_sample(run, SampleConfig(seed=command.config.seed), console)
        run.sample.write_text(text + "\n", encoding="utf-8")
        console.print(Text("\na sample", style="cyan"))
        console.print(Text(text.strip("\n") + "\n"), soft_wrap=not console.is_terminal)
    first, *others = run.files()
    more = f"lstm-optax sample --run {shlex.quote(str(run.path))}"
    rows = [("files", first), *(("", path) for path in others), ("more text", more)]
    console.print(plan_table(rows))


def _sample(command: Sample, errors: Console) -> int:
    command.config.check()
    run = RunFolder(command.run) if command.run else RunFolder.newest()
    command.config.check(run.read_config()[1]["text"]["vocabulary"])
    sys.stdout.write(_write_sample(run, command.config, errors) + "\n")
    return 0


def _write_sample(run: RunFolder, config: SampleConfig, console: Console) -> str:
    from lstm_optax.runs.sample import sample_text

    return sample_text(run.path, config, warn=lambda text: _warn(console, text))


def _warn(console: Console, text: str) -> None:
    line = f"[yellow]warning:[/] {escape(text)}"
    console.print(line, soft_wrap=not console.is_terminal)


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
    from lstm_optax.runs.train import Diverged
    from lstm_optax.training import CheckpointError

    if isinstance(error, CheckpointError):
        return f"{error}: train anew with --overwrite"
    return str(error) if isinstance(error, Diverged) else None
