"""The command `lstm-optax train`."""

import contextlib
import shlex
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from lstm_optax.commands.advise import print_advice
from lstm_optax.commands.failed_save import hide_repeated_errors
from lstm_optax.commands.output import keep_running
from lstm_optax.commands.pictures import save_picture
from lstm_optax.commands.sample import Folder, generate_text, print_warning
from lstm_optax.commands.signals import INTERRUPTED, STOP
from lstm_optax.heap import share_one_heap
from lstm_optax.records import write_atomically
from lstm_optax.runs.constraints import POSITIVE, OptionError, check_fields
from lstm_optax.runs.devices import prepare_devices, use_all_devices
from lstm_optax.runs.folder_lock import hold_folder
from lstm_optax.runs.options import SampleConfig, TrainConfig
from lstm_optax.runs.processes import ProcessOptions, is_first_process, joined_processes
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
    advise`; with --tensorboard, --wandb or --mlflow also logs/. Ctrl-C saves a checkpoint and
    stops; continue from it with --resume. So do SIGTERM, SIGHUP, SIGUSR1 and SIGXCPU. The exit
    status is then 130. One process at a time writes to a run folder.
    """

    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    run: Folder = None
    """Run folder; by default runs/TIME, or with --resume the newest run in runs/."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue an interrupted run, to the same numbers as an uninterrupted one."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run in the folder; files that no run wrote are kept."""

    job: tyro.conf.OmitArgPrefixes[ProcessOptions] = field(default_factory=ProcessOptions)

    save_within: Annotated[float | None, tyro.conf.arg(metavar="SECONDS"), POSITIVE] = None
    """After a signal, end within this time, even if the checkpoint is not complete then."""


def run_train(command: Train, console: Console) -> int:
    """Train and show the results; return the exit status."""
    share_one_heap()
    check_fields(command)
    _check_options(command)
    exists = bool(command.run) and any(command.run.glob("*"))
    read = None if exists else _read_corpus(command, console)  # before a folder is created
    run = RunFolder(command.run) if command.run else RunFolder.new()
    keep_running(console, run.write_log)
    with contextlib.ExitStack() as stack:
        if not command.run:
            stack.callback(run.remove_if_empty)
        if not command.job.distributed:  # else the first process does so, once it is known
            stack.enter_context(hold_folder(run.path, warn=partial(print_warning, console)))
            if not command.resume:
                run.check_free(overwrite=command.overwrite)
        corpus, config = read or _read_corpus(command, console)
        return _train_until_signal(run, replace(command, config=config), corpus, console)


def _train_until_signal(run: RunFolder, command: Train, corpus: "Corpus", console: Console) -> int:
    found = _identity(run.config)
    STOP.last_words = lambda: _last_words(run, command, corpus, found)
    STOP.note = lambda name: run.write_log(f"{name}: the training stops")
    STOP.save_within = command.save_within
    return _train_in_folder(run, command, corpus, console)


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


def _check_options(command: Train) -> None:
    """Raise OptionError for options that do not fit each other, or an invalid folder name."""
    config = command.config
    config.check()
    command.job.check()
    if command.job.distributed and not command.run:
        raise OptionError("--distributed needs --run DIR: a folder that all processes see")
    if command.job.distributed and config.devices and not command.resume:
        raise OptionError(
            f"--devices {config.devices} and --distributed, which uses all devices: pass only one"
        )
    if command.resume and command.overwrite:
        raise OptionError("--resume continues a run and --overwrite replaces it: pass only one")
    if command.run:
        RunFolder(command.run).check_path()


def _read_corpus(command: Train, console: Console) -> "tuple[Corpus, TrainConfig]":
    """Read the text, and raise the errors that can be detected before JAX is imported."""
    from lstm_optax.runs.corpus import corpus_of, resolve_epochs

    config = command.config
    reading = f"reading {config.text}" if config.text else "reading the help topics"
    with console.status(escape(reading)) if console.is_terminal else contextlib.nullcontext():
        corpus = corpus_of(config)
    config = resolve_epochs(config, corpus)
    if command.resume and command.run:
        check_resume(RunFolder(command.run), config)
    return corpus, config


def _train_in_folder(run: RunFolder, command: Train, corpus: "Corpus", console: Console) -> int:
    config = command.config
    if not command.job.distributed:
        prepare_devices(config.batch, config.devices)
        return _train_on_devices(run, command, corpus, console)
    with joined_processes(command.job):
        console.quiet = not is_first_process()
        config = use_all_devices(config)
        return _train_on_devices(run, replace(command, config=config), corpus, console)


def _train_on_devices(run: RunFolder, command: Train, corpus: "Corpus", console: Console) -> int:
    from lstm_optax.runs import Diverged, TrainScreen, loss_figure
    from lstm_optax.runs.train import train_in_held_folder, train_language_model

    # the latter lets the first of several processes hold the folder
    train = train_language_model if command.job.distributed else train_in_held_folder
    config = command.config
    hide_repeated_errors()
    units: dict[str, Any] = dict(unit="nats", item_unit=f"{corpus.unit}s")
    screen = TrainScreen(console, config.steps, config.batch * config.window, **units)
    rate = f"learning rate {config.learning_rate:g} {config.schedule}"
    title = ", ".join([config.optimizer, rate, *config.set])
    try:
        with screen:
            result = train(
                config,
                run.path,
                resume=command.resume,
                overwrite=command.overwrite,
                corpus=corpus,
                observer=_make_observer(console, screen, corpus),
            )
    except Diverged:
        if is_first_process():
            _draw_gradients(command, run, title)
        raise
    finally:
        STOP.saving = False
    if not is_first_process():
        return INTERRUPTED if result.reason == "interrupted" else 0
    figure = loss_figure(result.records, result.baselines, title=title, unit=_unit(corpus))
    save_picture(figure, run.picture)
    _draw_gradients(command, run, title)
    if STOP.requested() or result.reason == "interrupted":
        console.print(f"interrupted after step {result.step:,}; a checkpoint is saved")
        console.print(_how_to_continue(run, corpus), soft_wrap=True, markup=False)
        return INTERRUPTED
    _show_result(console, command, run, result, corpus)
    return 0


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what differs between two files that were at the same path; None if there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns


def _last_words(
    run: RunFolder, command: Train, corpus: "Corpus", found: tuple[int, int] | None
) -> str:
    """Remove a run that cannot be resumed, and return what to print at the end of the process.

    The run that was `found` in the folder stays, if this one did not yet replace it.
    """
    if command.overwrite and found and _identity(run.config) == found:
        return f"stopped; the run in {run.path} was not replaced"
    starts = not command.resume and not command.job.distributed
    if starts and run.remove_unsaved():
        return "stopped; nothing was saved"
    return f"stopped. {_how_to_continue(run, corpus)}"


def _how_to_continue(run: RunFolder, corpus: "Corpus") -> str:
    more = " --text FILE" if corpus.stream else ""
    return f"Continue with:\n  lstm-optax train --resume --run {shlex.quote(str(run.path))}{more}"


def _make_observer(console: Console, screen: "TrainScreen", corpus: "Corpus") -> "Observer":
    from lstm_optax.runs import Observer, plan_table

    def progress(step: int, loss: float) -> None:
        STOP.saving = True  # from now on, a signal waits for a checkpoint
        screen.progress(step, loss)

    return Observer(
        plan=lambda pairs: console.print(plan_table(pairs), ""),
        count=lambda n: console.print(f"counting n-gram models of {n:,} {corpus.unit}s"),
        warn=lambda message: print_warning(console, message),
        begin=screen.begin,
        progress=progress,
        record=lambda history, state: screen.record(history[-1]),
        should_stop=STOP.requested,
    )


def _unit(corpus: "Corpus") -> str:
    """Return the unit of the losses."""
    return f"nats per {corpus.unit}"


def _draw_gradients(command: Train, run: RunFolder, title: str) -> None:
    from lstm_optax.runs import gradient_figure

    if command.config.diagnose:
        figure = gradient_figure(run.gradients.read(), title=title)
        save_picture(figure, run.gradient_picture)


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
    write_atomically(run.sample, text + "\n")
    console.print(Text("\na sample", style="cyan"))
    console.print(Text(text.strip("\n") + "\n"), soft_wrap=not console.is_terminal)
