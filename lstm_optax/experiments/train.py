"""Train a character language model in a folder, from the beginning or from a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from lstm_optax.experiments.language import (
    Corpus,
    load_corpus,
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

__all__ = ["Diverged", "Observer", "TrainResult", "train_language_model"]


class Diverged(ArithmeticError):
    """The loss was not finite; the message says where, and what to try."""


@dataclass(frozen=True)
class Observer:
    """What a run tells while it goes; each is called when its time comes."""

    plan: Callable[[list[tuple[str, str]]], None] = lambda pairs: None
    warn: Callable[[str], None] = lambda message: None
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
    facts = _check_resume(run, config) if resume else {}
    corpus = load_corpus(config.text, config.batch, config.window)
    if resume and facts["text"]["sha256"] != corpus.sha256:
        raise OptionError(f"--resume: the text {corpus.name} is not the one the run began with")
    schedule = make_schedule(config)
    optimizer = make_optimizer(config, schedule)
    model = make_model(config, len(corpus.vocabulary))
    state = make_state(config, model, optimizer)
    checkpoints = Checkpoints(run.checkpoints)
    history = []
    if resume:
        step, state, damaged = checkpoints.restore(state)
        for bad in damaged:
            observer.warn(f"the checkpoint of step {bad} is damaged; going on from step {step}")
        history = run.read_records(step)
        run.write_records(history)
    else:
        run.create(overwrite=overwrite)
    run.write_config(config, _facts(corpus))
    observer.plan(_plan(config, corpus, run, state))

    def keep(history: list[dict[str, Any]], state: TrainState) -> None:
        record = history[-1]
        record["learning_rate"] = np.asarray(schedule(record["step"] - 1)).item()
        run.append_record(record)
        best = best_record(history)
        checkpoints.save(record["step"], state, spare=best["step"] if best else None)
        observer.record(record)

    loss, measure = make_losses(nnx.graphdef(model))
    carry = model.lstm.initial_carry(config.batch)
    windows = [corpus.validation(p) for p in range(len(corpus.validation))]
    try:
        state, history, reason = fit(
            make_step(loss, optimizer),
            state,
            corpus.train,
            steps=config.steps,
            evaluate=make_evaluate(measure, carry, windows),
            eval_every=config.eval_every,
            patience=config.patience,
            history=history,
            on_progress=observer.progress,
            on_record=keep,
            should_stop=observer.should_stop,
        )
    except NonFiniteError as error:
        raise Diverged(_advice(error, config, schedule, checkpoints)) from None
    step, best = int(state.step), best_record(history)
    if reason == "interrupted":
        checkpoints.save(step, state, spare=best["step"] if best else None)
    return TrainResult(history, corpus.floors, best, reason, step)


def _check_resume(run: RunFolder, config: TrainConfig) -> dict[str, Any]:
    stored, facts = run.read_config()
    changed = [name for name in vars(config) if getattr(config, name) != getattr(stored, name)]
    if changed == ["steps"] and config.schedule != "constant":
        raise OptionError(
            f"--resume with --steps {config.steps}: the run was planned for {stored.steps} steps, "
            f"and its {config.schedule} schedule depends on them; only a constant one can go on"
        )
    if changed and changed != ["steps"]:
        values = ", ".join(
            f"--{name.replace('_', '-')} {getattr(stored, name)}" for name in changed
        )
        raise OptionError(f"--resume: the run in {run.path} has {values}; leave them as they were")
    return facts


def _facts(corpus: Corpus) -> dict[str, Any]:
    packages = ("lstm_optax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "text": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "characters": corpus.characters,
            "vocabulary": "".join(corpus.vocabulary.characters),
        },
        "floors": corpus.floors,
        "device": str(jax.devices()[0]),
        "versions": {package: version(package) for package in packages},
    }


def _plan(
    config: TrainConfig, corpus: Corpus, run: RunFolder, state: TrainState
) -> list[tuple[str, str]]:
    count, step = sum(leaf.size for leaf in jax.tree.leaves(state.params)), int(state.step)
    epochs = config.steps / len(corpus.train)
    kinds = len(corpus.vocabulary)
    pairs = [
        (
            "text",
            f"{corpus.name}, {corpus.characters:,} characters, {kinds} of them distinct",
        ),
        (
            "model",
            f"LSTM, {config.layers} × {config.hidden} units, embedding {config.embedding}, "
            f"{count:,} parameters, {config.dtype}",
        ),
        (
            "optimizer",
            f"{config.optimizer}, learning rate {config.learning_rate:g} {config.schedule}, "
            f"clip {config.clip:g}",
        ),
        (
            "training",
            f"{config.steps:,} steps of {config.batch} × {config.window} characters, "
            f"{epochs:.1f} passes",
        ),
        ("device", str(jax.devices()[0])),
        ("run folder", str(run.path)),
    ]
    return pairs + ([("resumed", f"after step {step:,}")] if step else [])


def _all_windows(corpus: Corpus) -> list:
    return [corpus.validation(p) for p in range(len(corpus.validation))]


def _advice(error: NonFiniteError, config: TrainConfig, schedule, checkpoints: Checkpoints) -> str:
    rate = float(np.asarray(schedule(error.step - 1)))
    kept = checkpoints.steps()
    last = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was made yet"
    clip = "a smaller --clip" if config.clip else "--clip 1"
    return (
        f"{error}; the learning rate was {rate:g}. Try --learning-rate "
        f"{config.learning_rate / 3:.2g}, --warmup {max(config.steps // 20, 1)} or {clip}; {last}"
    )
