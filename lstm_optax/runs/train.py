"""Train a character language model in a folder, from the beginning or from a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from lstm_optax.records import PACKAGES
from lstm_optax.runs.build import make_extra_args, make_losses
from lstm_optax.runs.corpus import Corpus, corpus_of, resolve_epochs
from lstm_optax.runs.devices import describe_devices
from lstm_optax.runs.job import Job, prepare
from lstm_optax.runs.keeper import Keeper
from lstm_optax.runs.options import TrainConfig
from lstm_optax.runs.plan import plan_of
from lstm_optax.runs.resume import restore_run, resumed_config
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.training import (
    Checkpoints,
    FitResult,
    NonFiniteError,
    TrainState,
    best_record,
    fit,
    make_evaluate,
    make_step,
)

__all__ = ["Observer", "TrainResult", "train_language_model"]

RUN_PACKAGES = (*PACKAGES, "orbax-checkpoint")


@dataclass(frozen=True)
class Observer:
    """Callbacks of a training run."""

    plan: Callable[[list[tuple[str, str]]], None] = lambda pairs: None
    count: Callable[[int], None] = lambda tokens: None  # before n-grams are counted
    warn: Callable[[str], None] = lambda message: None
    begin: Callable[[int], None] = lambda step: None  # with the number of steps already taken
    progress: Callable[[int, float], None] = lambda step, loss: None
    record: Callable[[dict[str, Any]], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False


class TrainResult(NamedTuple):
    """Result of a training run."""

    records: list[dict[str, Any]]
    baselines: dict[str, float]  # losses of the n-gram models, in nats per token
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
    """Train a model, and write records, checkpoints and the configuration to `folder`.

    Args:
      config: options of the run.
      folder: run folder; must contain no run, unless `resume` or `overwrite`.
      resume: continue from the newest intact checkpoint, to the same numbers as an uninterrupted
        run.
      overwrite: replace the run in the folder.
      corpus: the text of `config` if it was read before: a pipe can be read only once.
      observer: callbacks.

    Raises:
      OptionError, TextError: an option or the text is invalid; the folder is unchanged.
      CheckpointError: `resume` found no intact checkpoint.
      Diverged: the loss was not finite; the last checkpoint is kept.
      OSError: the folder cannot be written; the last checkpoint is kept.
    """
    config.check()
    run = RunFolder(folder)
    corpus = corpus or corpus_of(config)
    config = resolve_epochs(config, corpus)
    if resume:
        config = resumed_config(run, config, corpus, observer.warn)
    job = prepare(config, corpus)
    state, history, checkpoints = job.initial_state(), [], Checkpoints(run.checkpoints)
    if resume:
        state, history = restore_run(run, checkpoints, job.config, state, observer.warn)
    else:
        run.create(overwrite=overwrite)
    baselines = _begin(job, run, state, observer, resume=resume)
    keeper = Keeper(job, run, checkpoints, observer.record)
    try:
        end = _fit(job, state, history, keeper, observer)
    except NonFiniteError as error:
        raise keeper.divergence_at(error.step, str(error)) from None
    keeper.finish(end)
    best = best_record(end.history)
    return TrainResult(end.history, baselines, best, end.reason, int(end.state.step))


def _begin(
    job: Job, run: RunFolder, state: TrainState, observer: Observer, *, resume: bool
) -> dict[str, float]:
    """Write config.json, report the plan, and return the losses of the n-gram models."""
    config, corpus, step = job.config, job.corpus, int(state.step)
    facts = run.read_config()[1] if resume else {}
    # They are missing if the run was killed while they were counted.
    baselines = facts.get("baselines", {})
    device = describe_devices(job.devices, config.batch)
    run.write_config(config, _run_facts(corpus, baselines, device), new=not resume)
    observer.plan(plan_of(config, corpus, state, folder=run.path, device=device))
    if not baselines and config.baselines:
        observer.count(corpus.counted)
        baselines = corpus.count_ngrams()
        run.write_config(config, _run_facts(corpus, baselines, device))
    if step < config.steps:
        observer.begin(step)
    return baselines


def _fit(
    job: Job,
    state: TrainState,
    history: list[dict[str, Any]],
    keeper: Keeper,
    observer: Observer,
) -> FitResult:
    config, corpus = job.config, job.corpus
    loss, measure = make_losses(nnx.graphdef(job.model), ar=config.ar, tar=config.tar)
    extra_args = make_extra_args(config.window if config.vary_window else None)
    carry, windows = job.model.lstm.initial_carry(config.batch), list(corpus.validation)
    return fit(
        make_step(loss, job.optimizer, extra_args=extra_args),
        state,
        corpus.train,
        steps=config.steps,
        evaluate=make_evaluate(measure, carry, windows, sharding=job.sharding),
        eval_every=config.eval_every,
        patience=config.patience,
        sharding=job.sharding,
        history=history,
        on_progress=observer.progress,
        on_record=keeper.keep,
        should_stop=observer.should_stop,
    )


def _run_facts(corpus: Corpus, baselines: dict[str, float], device: str) -> dict[str, Any]:
    return {
        "text": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "kind": corpus.kind,
            "tokens": corpus.tokens,
            "stream": corpus.stream,
            "vocabulary": corpus.vocabulary.content,
        },
        "baselines": baselines,
        "device": device,
        "versions": {package: version(package) for package in RUN_PACKAGES},
    }
