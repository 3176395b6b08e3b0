"""The command `lstm-optax train`."""

import contextlib
import logging
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from lstm_optax.commands.advise import print_advice
from lstm_optax.commands.sample import Folder, generate_text, print_warning
from lstm_optax.commands.signals import StopOnSignal
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.devices import prepare_devices
from lstm_optax.runs.options import SampleConfig, TrainConfig
from lstm_optax.runs.resume import check_resume
from lstm_optax.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from lstm_optax.runs.corpus import Corpus
    from lstm_optax.runs.progress import TrainScreen
    from lstm_optax.runs.train import Observer, TrainResult


@dataclass(frozen=True)
class Train:
    """Train an LSTM on the characters of a text; by default Python's help topics, in a minute.

    A folder that `lstm-optax prepare` wrote can be a text of any size, and of words or bytes.

    Writes metrics.jsonl, loss.png, sample.txt, config.json and checkpoints/ to the run folder;
    with --diagnose also gradients.jsonl and gradients.png, and prints the findings of `lstm-optax
    advise`. Ctrl-C saves a checkpoint and stops; continue from it with --resume.
    """

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    run: Folder = None
    """Run folder; by default runs/TIME, or with --resume the newest run in runs/."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue an interrupted run, to the same numbers as an uninterrupted one."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run in the folder."""


def run_train(command: Train, console: Console) -> int:
    """Train and show the results; return the exit status."""
    corpus, config = _read_corpus(command, console)
    run = RunFolder(command.run) if command.run else RunFolder.new()
    try:
        return _train_in_folder(run, replace(command, config=config), corpus, console)
    finally:
        if not command.run:
            run.remove_if_empty()


def stored_config(run: RunFolder, given: TrainConfig) -> TrainConfig:
    """Return the configuration of a run, as defaults for the flags that were not given.

    Raises:
      OptionError: the run is damaged, or its text came from a pipe and --text is not given.
    """
    config, facts = run.read_config()
    if facts["text"].get("stream") and given.text is None:
        raise OptionError(
            f"--resume: the run read its text from a pipe, {config.text}, which cannot be read "
            "again: pass a file with the same text with --text FILE, or pipe it in again with "
            "--text /dev/stdin"
        )
    if given.epochs is not None:
        config = replace(config, steps=TrainConfig.steps)
    # the flags --set are added to the default
    return replace(config, set=()) if given.set else config


def _read_corpus(command: Train, console: Console) -> "tuple[Corpus, TrainConfig]":
    """Read the text, and raise the errors that can be detected before JAX is imported."""
    config = command.config
    config.check()
    if command.resume and command.overwrite:
        raise OptionError("--resume continues a run and --overwrite replaces it: pass only one")
    if command.run and not command.resume:
        run = RunFolder(command.run)
        run.check_path() if command.overwrite else run.check_free()
    from lstm_optax.runs.corpus import corpus_of, resolve_epochs

    reading = f"reading {config.text}" if config.text else "reading the help topics"
    with console.status(escape(reading)) if console.is_terminal else contextlib.nullcontext():
        corpus = corpus_of(config)
    config = resolve_epochs(config, corpus)
    if command.resume and command.run:
        check_resume(RunFolder(command.run), config)
    return corpus, config


def _train_in_folder(run: RunFolder, command: Train, corpus: "Corpus", console: Console) -> int:
    config = command.config
    prepare_devices(config.batch, config.devices)

    from lstm_optax.runs import Diverged, TrainScreen, loss_figure
    from lstm_optax.runs.train import train_language_model

    for name in ("absl", "asyncio"):  # Orbax logs the errors that it raises, with a traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    units: dict[str, Any] = dict(unit="nats", item_unit=f"{corpus.unit}s")
    screen = TrainScreen(console, config.steps, config.batch * config.window, **units)
    rate = f"learning rate {config.learning_rate:g} {config.schedule}"
    title = ", ".join([config.optimizer, rate, *config.set])
    try:
        with screen, StopOnSignal() as stop:
            result = train_language_model(
                config,
                run.path,
                resume=command.resume,
                overwrite=command.overwrite,
                corpus=corpus,
                observer=_make_observer(console, screen, stop, corpus),
            )
    except Diverged:
        _draw_gradients(command, run, title)
        raise
    figure = loss_figure(result.records, result.baselines, title=title, unit=_unit(corpus))
    figure.savefig(run.picture)
    _draw_gradients(command, run, title)
    if result.reason == "interrupted":
        console.print(f"interrupted after step {result.step:,}; a checkpoint is saved")
        more = " --text FILE" if corpus.stream else ""
        again = f"lstm-optax train --resume --run {shlex.quote(str(run.path))}{more}"
        console.print(f"Continue with:\n  {again}", soft_wrap=True, markup=False)
        return 130
    _show_result(console, command, run, result, corpus)
    return 0


def _make_observer(
    console: Console, screen: "TrainScreen", stop: StopOnSignal, corpus: "Corpus"
) -> "Observer":
    from lstm_optax.runs import Observer, plan_table

    return Observer(
        plan=lambda pairs: console.print(plan_table(pairs), ""),
        count=lambda n: console.print(f"counting n-gram models of {n:,} {corpus.unit}s"),
        warn=lambda message: print_warning(console, message),
        begin=screen.begin,
        progress=screen.progress,
        record=screen.record,
        should_stop=stop.requested,
    )


def _unit(corpus: "Corpus") -> str:
    """Return the unit of the losses."""
    return f"nats per {corpus.unit}"


def _draw_gradients(command: Train, run: RunFolder, title: str) -> None:
    from lstm_optax.runs import gradient_figure

    if command.config.diagnose:
        gradient_figure(run.gradients.read(), title=title).savefig(run.gradient_picture)


def _show_result(
    console: Console, command: Train, run: RunFolder, result: "TrainResult", corpus: "Corpus"
) -> None:
    from lstm_optax.runs import plan_table

    if result.reason == "patience":
        console.print(
            f"stopped early after step {result.step:,}: the validation loss has not improved for "
            f"{command.config.patience} evaluations (--patience)",
            soft_wrap=not console.is_terminal,
        )
    if result.best:
        _show_best(console, command, run, result, corpus)
    first, *others = run.files()
    more = f"lstm-optax sample --run {shlex.quote(str(run.path))}"
    rows = [("files", first), *(("", path) for path in others), ("more text", more)]
    console.print(plan_table(rows))
    if command.config.diagnose:
        console.print("")
        print_advice(console, run)


def _show_best(
    console: Console, command: Train, run: RunFolder, result: "TrainResult", corpus: "Corpus"
) -> None:
    """Print the table of losses and a sample of the best model; write the sample."""
    from lstm_optax.runs import loss_table

    best: dict[str, Any] = result.best or {}
    name, caption = f"LSTM, step {best['step']:,}", ""
    total = len(corpus.codes[0])
    if result.baselines and corpus.counted < total:
        caption = f"n-gram models of the last {corpus.counted:,} of {total:,} {corpus.unit}s"
    options: dict[str, str] = dict(name=name, unit=_unit(corpus), caption=caption)
    console.print("", loss_table(best["val_loss"], result.baselines, **options))
    text = generate_text(run, SampleConfig(seed=command.config.seed), console)
    run.sample.write_text(text + "\n", encoding="utf-8")
    console.print(Text("\na sample", style="cyan"))
    console.print(Text(text.strip("\n") + "\n"), soft_wrap=not console.is_terminal)
