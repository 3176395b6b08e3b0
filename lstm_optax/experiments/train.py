"""Train a character language model in a folder, from the beginning or from a checkpoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from lstm_optax.experiments.devices import describe_devices, find_devices, make_sharding
from lstm_optax.experiments.diagnosis import make_diagnose
from lstm_optax.experiments.language import (
    Corpus,
    load_corpus,
    make_extra_args,
    make_losses,
    make_model,
    make_optimizer,
    make_schedule,
    make_state,
)
from lstm_optax.experiments.options import OptionError, TrainConfig
from lstm_optax.experiments.run_folder import RunFolder
from lstm_optax.training import (
    Checkpoints,
    NonFiniteError,
    TrainState,
    best_record,
    fit,
    make_evaluate,
    make_step,
)
from lstm_optax.transforms import GuardState, find_states

__all__ = ["Diverged", "Observer", "TrainResult", "train_language_model"]


class Diverged(ArithmeticError):
    """The loss was not finite, or the guard gave up; the message says where, and what to try."""


@dataclass(frozen=True)
class Observer:
    """What a run tells while it goes; each is called when its time comes."""

    plan: Callable[[list[tuple[str, str]]], None] = lambda pairs: None
    warn: Callable[[str], None] = lambda message: None
    begin: Callable[[int], None] = lambda step: None  # with the step to go on from
    progress: Callable[[int, float], None] = lambda step, loss: None
    record: Callable[[dict[str, Any]], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False


class TrainResult(NamedTuple):
    """What a run gives."""

    records: list[dict[str, Any]]
    floors: dict[str, float]
    best: dict[str, Any] | None  # the record with the lowest validation loss
    reason: str  # "steps", "patience" or "interrupted"
    step: int


def train_language_model(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer = Observer(),
) -> TrainResult:
    """Train, and keep records, checkpoints and a sample in `folder`.

    Args:
      config: what to train.
      folder: where; must hold no run, unless `resume` or `overwrite`.
      resume: go on from the newest whole checkpoint in it, to the numbers of an unbroken run.
      overwrite: replace the run in it.
      observer: what is told of the progress.

    Raises:
      OptionError, TextError: an option or a text that cannot be, found before anything is touched.
      CheckpointError: nothing whole to resume from.
      Diverged: the loss was not finite; the last checkpoint remains.
      OSError: the folder cannot be written; the last checkpoint remains.
    """
    config.check()
    run = RunFolder(folder)
    if resume:
        run.check_resume(config)
        config = _with_devices(config, run, observer.warn)
    devices = find_devices(config)
    config = replace(config, devices=len(devices))
    sharding = make_sharding(devices)
    vary_seed = config.seed if config.vary_window else None
    corpus = load_corpus(config.text, config.batch, config.window, vary_seed=vary_seed)
    if resume and run.read_config()[1]["text"]["sha256"] != corpus.sha256:
        raise OptionError(
            f"--resume: the text {corpus.name} is not the one that the run began with; "
            "name that one with --text FILE, or another folder with --run DIR for another run"
        )
    schedule = make_schedule(config)
    optimizer = make_optimizer(config, schedule)
    model = make_model(config, len(corpus.vocabulary))
    state = make_state(config, model, optimizer)
    state = sharding.state(state) if sharding else state
    checkpoints = Checkpoints(run.checkpoints)
    history = []
    if resume:
        state, history = _restore(run, checkpoints, config, state, observer.warn)
        run.write_records(history)
        if config.diagnose:
            run.write_gradients(run.read_gradients(int(state.step)))
    else:
        run.create(overwrite=overwrite)
    device = describe_devices(devices, config.batch)
    run.write_config(config, _facts(corpus, device))
    observer.plan(_plan(config, corpus, run, state, device))
    if int(state.step) < config.steps:
        observer.begin(int(state.step))

    carry = model.lstm.initial_carry(config.batch)
    graphdef = nnx.graphdef(model)
    diagnose = make_diagnose(graphdef, carry, corpus.train(0)) if config.diagnose else None

    def keep(history: list[dict[str, Any]], state: TrainState) -> None:
        record = history[-1]
        record["learning_rate"] = _rate(schedule, record["step"], state)
        if diagnose:
            numbers, arrays = diagnose(state.params)
            record |= numbers
            run.append_gradients({"step": record["step"]} | arrays)
        run.append_record(record)
        best = best_record(history)
        good = math.isfinite(record["val_loss"])
        if good:
            checkpoints.save(record["step"], state, spare=best["step"] if best else None)
        observer.record(record)
        if not good and record["step"] == config.steps:  # else the next step tells more of it
            error = f"the validation loss after step {config.steps} is not finite"
            raise Diverged(_advice(error, record["learning_rate"], config, checkpoints))

    loss, measure = make_losses(graphdef, ar=config.ar, tar=config.tar)
    try:
        state, history, reason, detail = fit(
            make_step(loss, optimizer, extra_args=make_extra_args(config)),
            state,
            corpus.train,
            steps=config.steps,
            evaluate=make_evaluate(measure, carry, list(corpus.validation), sharding=sharding),
            eval_every=config.eval_every,
            patience=config.patience,
            sharding=sharding,
            history=history,
            on_progress=observer.progress,
            on_record=keep,
            should_stop=observer.should_stop,
        )
    except NonFiniteError as error:
        rate = _rate(schedule, error.step)
        raise Diverged(_advice(str(error), rate, config, checkpoints)) from None
    step, best = int(state.step), best_record(history)
    if reason in ("interrupted", "gave_up") and not checkpoints.is_whole(step):
        checkpoints.save(step, state, spare=best["step"] if best else None)
    if reason == "gave_up":
        raise Diverged(_advice(detail, _rate(schedule, step, state), config, checkpoints))
    return TrainResult(history, corpus.floors, best, reason, step)


def _with_devices(config: TrainConfig, run: RunFolder, warn: Callable[[str], None]) -> TrainConfig:
    """Return the configuration with the number of devices that the run had, or is to have now."""
    before = run.read_config()[0].devices
    now = config.devices or before
    if now != before:
        warn(f"the run had {before} devices and goes on with {now}: equal to rounding alone")
    return replace(config, devices=now)


def _restore(
    run: RunFolder,
    checkpoints: Checkpoints,
    config: TrainConfig,
    state: TrainState,
    warn: Callable[[str], None],
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Return the newest whole checkpoint and the records up to it; warn of what is damaged."""
    step, state, damaged = checkpoints.restore(state)
    if step > config.steps:
        raise OptionError(f"--resume with --steps {config.steps}: the run has done {step} already")
    for bad in damaged:
        warn(f"the checkpoint of step {bad} is damaged; going on from step {step}")
    history = run.read_records(step)
    lost = step // config.eval_every - len(history)
    if lost > 0:
        warn(f"{run.metrics} is damaged; records lost: {lost}")
    return state, history


def _facts(corpus: Corpus, device: str) -> dict[str, Any]:
    packages = ("lstm_optax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "text": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "characters": corpus.characters,
            "vocabulary": "".join(corpus.vocabulary.characters),
        },
        "floors": corpus.floors,
        "device": device,
        "versions": {package: version(package) for package in packages},
    }


def _plan(
    config: TrainConfig, corpus: Corpus, run: RunFolder, state: TrainState, device: str
) -> list[tuple[str, str]]:
    count, step = sum(leaf.size for leaf in jax.tree.leaves(state.params)), int(state.step)
    epochs = corpus.train.start(config.steps) / len(corpus.train.inputs)
    kinds = len(corpus.vocabulary)
    model = [
        f"LSTM, {config.layers} × {config.hidden:,} units, embedding {config.embedding:,}",
        *(["tied"] if config.tied else []),
        *_dropouts(config),
        f"{count:,} parameters, {config.dtype}",
    ]
    decay = config.weight_decay
    optimizer = [
        f"{config.optimizer}, learning rate {config.learning_rate:g} {config.schedule}",
        *([f"warmup {config.warmup:,} steps"] if config.warmup else []),
        *([f"weight decay {decay:g}"] if decay is not None else []),
        f"clip {config.clip:g}" if config.clip else "no clip",
        *([f"clip of the gates ±{config.clip_gates:g}"] if config.clip_gates else []),
        *([f"guard, gives up after {config.guard:,}"] if config.guard else []),
    ]
    about = "about " if config.vary_window else ""
    training = (
        f"{config.steps:,} steps of {config.batch} × {about}{config.window} characters, "
        f"{epochs:.1f} passes over the text"
    )
    pairs = [
        ("text", f"{corpus.name}, {corpus.characters:,} characters, {kinds} of them distinct"),
        ("model", ", ".join(model)),
        ("optimizer", ", ".join(optimizer)),
        ("training", training),
        ("device", device),
        ("run folder", str(run.path)),
    ]
    return pairs + ([("resumed", f"after step {step:,} of {config.steps:,}")] if step else [])


def _rate(schedule: Callable, step: int, state: TrainState | None = None) -> float:
    """The learning rate of a step: a schedule waits while a guard refuses."""
    guards = find_states(state, GuardState)
    waited = max((int(guard.refused) for guard in guards), default=0)
    return np.asarray(schedule(max(step - waited, 1) - 1)).item()


def _dropouts(config: TrainConfig) -> list[str]:
    rates = {
        "locked dropout" if config.locked_dropout else "dropout": config.dropout,
        "embedding dropout": config.embedding_dropout,
        "weight dropout": config.weight_dropout,
        "AR": config.ar,
        "TAR": config.tar,
    }
    return [f"{name} {rate:g}" for name, rate in rates.items() if rate]


def _advice(error: str, rate: float, config: TrainConfig, checkpoints: Checkpoints) -> str:
    kept = checkpoints.steps()
    last = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was made yet"
    remedies = [
        f"--learning-rate {config.learning_rate / 3:.2g}",
        *([] if config.warmup else [f"--warmup {max(config.steps // 20, 1)}"]),
        "a smaller --clip" if config.clip else "--clip 1",
    ]
    return f"{error}; the learning rate was {rate:g}. Try {' or '.join(remedies)}; {last}"
