"""Train a character language model in a folder, from the beginning or from a checkpoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from lstm_optax.runs.build import (
    abstract_state,
    make_extra_args,
    make_losses,
    make_model,
    make_optimizer,
    make_schedule,
    make_state,
)
from lstm_optax.runs.corpus import Corpus, corpus_of, resolve_epochs
from lstm_optax.runs.devices import describe_devices, find_devices, make_sharding
from lstm_optax.runs.diagnosis import make_diagnose
from lstm_optax.runs.memory import check_memory
from lstm_optax.runs.options import OptionError, TrainConfig
from lstm_optax.runs.plan import plan_of
from lstm_optax.runs.run_folder import RunFolder
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
    count: Callable[[int], None] = lambda characters: None  # before the n-grams of so many
    warn: Callable[[str], None] = lambda message: None
    begin: Callable[[int], None] = lambda step: None  # with the step to go on from
    progress: Callable[[int, float], None] = lambda step, loss: None
    record: Callable[[dict[str, Any]], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False


class TrainResult(NamedTuple):
    """What a run gives."""

    records: list[dict[str, Any]]
    baselines: dict[str, float]  # losses of the n-gram models, nats per character
    best: dict[str, Any] | None  # the record with the lowest validation loss
    reason: str  # "steps", "patience" or "interrupted"
    step: int


def train_language_model(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    corpus: Corpus | None = None,
    observer: Observer = Observer(),
) -> TrainResult:
    """Train, and keep records, checkpoints and a sample in `folder`.

    Args:
      config: what to train.
      folder: where; must hold no run, unless `resume` or `overwrite`.
      resume: go on from the newest whole checkpoint in it, to the numbers of an unbroken run.
      overwrite: replace the run in it.
      corpus: the text of `config`, where it was read already: a pipe can be read only once.
      observer: what is told of the progress.

    Raises:
      OptionError, TextError: an option or a text that cannot be, found before anything is touched.
      CheckpointError: nothing whole to resume from.
      Diverged: the loss was not finite; the last checkpoint remains.
      OSError: the folder cannot be written; the last checkpoint remains.
    """
    config.check()
    run = RunFolder(folder)
    corpus = corpus or corpus_of(config)
    config = resolve_epochs(config, corpus)
    stored: dict[str, Any] = {}
    if resume:
        run.check_resume(config)
        config = _with_devices(config, run, observer.warn)
        stored = run.read_config()[1]
        if stored["text"]["sha256"] != corpus.sha256:
            raise OptionError(
                f"--resume: the text {corpus.name} is not the one that the run began with; "
                "name that one with --text FILE, or another folder with --run DIR for another run"
            )
    devices = find_devices(config)
    config = replace(config, devices=len(devices))
    sharding = make_sharding(devices)
    schedule = make_schedule(config)
    optimizer = make_optimizer(config, schedule)
    kinds = len(corpus.vocabulary)
    check_memory(config, abstract_state(config, kinds, optimizer), kinds, devices)
    model = make_model(config, kinds)
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
    baselines = stored.get(
        "baselines", {}
    )  # none where the run was killed before they were counted
    run.write_config(config, _facts(corpus, baselines, device), new=not resume)
    observer.plan(plan_of(config, corpus, run, state, device))
    if not baselines:
        observer.count(corpus.counted)
        baselines = corpus.count_ngrams()
        run.write_config(config, _facts(corpus, baselines, device))
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
            checkpoints.save(record["step"], state, keep=best["step"] if best else None)
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
        checkpoints.save(step, state, keep=best["step"] if best else None)
    if reason == "gave_up":
        raise Diverged(_advice(detail, _rate(schedule, step, state), config, checkpoints))
    return TrainResult(history, baselines, best, reason, step)


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


def _facts(corpus: Corpus, baselines: dict[str, float], device: str) -> dict[str, Any]:
    packages = ("lstm_optax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "text": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "characters": corpus.characters,
            "stream": corpus.stream,
            "vocabulary": "".join(corpus.vocabulary.characters),
        },
        "baselines": baselines,
        "device": device,
        "versions": {package: version(package) for package in packages},
    }


def _rate(schedule: Callable, step: int, state: TrainState | None = None) -> float:
    """The learning rate of a step: a schedule waits while a guard refuses."""
    guards = find_states(state, GuardState)
    waited = max((int(guard.skipped) for guard in guards), default=0)
    return np.asarray(schedule(max(step - waited, 1) - 1)).item()


def _advice(error: str, rate: float, config: TrainConfig, checkpoints: Checkpoints) -> str:
    kept = checkpoints.steps()
    last = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was made yet"
    remedies = [
        f"--learning-rate {config.learning_rate / 3:.2g}",
        *([] if config.warmup else [f"--warmup {max(config.steps // 20, 1)}"]),
        "a smaller --clip" if config.clip else "--clip 1",
    ]
    return f"{error}; the learning rate was {rate:g}. Try {' or '.join(remedies)}; {last}"
