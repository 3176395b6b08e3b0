"""Train a character language model in a folder, from the beginning or from a checkpoint."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from lstm_optax.checkpoints import Checkpoints
from lstm_optax.records import PACKAGES, installed_versions
from lstm_optax.runs.build import make_extra_args, make_losses
from lstm_optax.runs.corpus import Corpus, corpus_of, resolve_epochs
from lstm_optax.runs.devices import describe_devices, use_all_devices
from lstm_optax.runs.folder_lock import hold_folder
from lstm_optax.runs.job import Job, prepare
from lstm_optax.runs.keeper import Keeper
from lstm_optax.runs.options import TrainConfig
from lstm_optax.runs.own_files import join_names
from lstm_optax.runs.parts import Part, continue_parts, parts_of
from lstm_optax.runs.plan import plan_of
from lstm_optax.runs.processes import in_first_process, is_first_process
from lstm_optax.runs.resume import restore_run, resumed_config
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.runs.watching import Watchers
from lstm_optax.training import (
    FitResult,
    NonFiniteError,
    Rewind,
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
    record: Callable[[list[dict[str, Any]], TrainState], None] = lambda history, state: None
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

    With several processes, connected by `jax.distributed.initialize`, each of them calls this
    function with the same arguments, and a folder that all of them see. The first process holds
    the folder meanwhile: no other training can write to it.

    Args:
      config: options of the run.
      folder: run folder; must contain no run, unless `resume` or `overwrite`.
      resume: continue from the newest intact checkpoint, to the same numbers as an uninterrupted
        run.
      overwrite: replace the run in the folder; other files in it are kept.
      corpus: the text of `config` if it was read before: a pipe can be read only once.
      observer: callbacks.

    Raises:
      OptionError, TextError: an option or the text is invalid, another process uses the folder, it
        has other files under the names of a run's, or a logger cannot start; the run in the folder
        is unchanged.
      CheckpointError: `resume` found no intact checkpoint, or a checkpoint cannot be written; the
        last one is kept.
      Diverged: the loss was not finite, and no rewind was left; the last checkpoint is kept.
      OSError: the folder cannot be written; the last checkpoint is kept.
    """
    config.check()
    run = RunFolder(folder)
    run.check_path()
    if resume:
        run.read_config()  # raises before the folder of a run that does not exist is created
    with ExitStack() as stack:
        in_first_process(lambda: stack.enter_context(hold_folder(run.path, warn=observer.warn)))
        options: dict[str, Any] = dict(resume=resume, overwrite=overwrite, corpus=corpus)
        return train_in_held_folder(config, run.path, **options, observer=observer)


def train_in_held_folder(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool,
    overwrite: bool,
    corpus: Corpus | None,
    observer: Observer,
) -> TrainResult:
    """Train as `train_language_model` does, in a folder that the first process holds."""
    run = RunFolder(folder, writes=is_first_process())
    if jax.process_count() > 1:
        config = use_all_devices(config)
    corpus = corpus or corpus_of(config)
    config = resolve_epochs(config, corpus)
    if resume:
        config = resumed_config(run, config, corpus, observer.warn)
    job = prepare(config, corpus)
    state, history = job.initial_state(), []
    checkpoints = Checkpoints(
        run.checkpoints, keep=config.keep, keep_every=config.keep_every or None
    )
    if resume:
        in_first_process(run.reopen)
        state, history = restore_run(run, checkpoints, job.config, state, observer.warn)
    else:
        in_first_process(lambda: _create(run, overwrite, observer.warn))
    # `checkpoints` waits for the save in progress, whatever ends the training
    with Watchers(job.config, run, observer.warn) as watchers, checkpoints:
        baselines = _begin(job, run, state, observer, resume=resume)

        def on_record(history: list[dict[str, Any]], state: TrainState) -> None:
            watchers(history, state)
            observer.record(history, state)

        keeper = Keeper(job, run, checkpoints, on_record, observer.warn)
        try:
            end = _fit(job, state, history, keeper, observer)
        except NonFiniteError as error:
            raise keeper.divergence_at(error) from None
        keeper.finish(end)
    best = best_record(end.history)
    return TrainResult(end.history, baselines, best, end.reason, int(end.state.step))


def _create(run: RunFolder, overwrite: bool, warn: Callable[[str], None]) -> None:
    if left := run.create(overwrite=overwrite):
        warn(f"{run.path} keeps what the replaced run did not write: {join_names(left)}")


def _begin(
    job: Job, run: RunFolder, state: TrainState, observer: Observer, *, resume: bool
) -> dict[str, float]:
    """Write config.json, report the plan, and return the losses of the n-gram models."""
    config, corpus, step = job.config, job.corpus, int(state.step)
    facts = run.read_config()[1] if resume else {}
    # They are missing if the run was killed while they were counted.
    baselines = facts.get("baselines", {})
    device = describe_devices(job.devices, config.batch)
    parts, changes = parts_of(facts), ""
    if step < config.steps:
        parts, changes = continue_parts(facts, step, installed_versions(RUN_PACKAGES))
    if changes:
        observer.warn(
            f"the run continues with other versions, {changes}: its numbers may differ from those "
            f"of one version; {run.config} records both"
        )
    run.write_config(config, _run_facts(corpus, baselines, device, parts), new=not resume)
    observer.plan(plan_of(config, corpus, state, folder=run.path, device=device))
    if not baselines and run.writes and config.baselines:
        observer.count(corpus.counted)
        baselines = corpus.count_ngrams()
        run.write_config(config, _run_facts(corpus, baselines, device, parts))
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
        rewind=Rewind(keeper.rewind, times=config.rewind) if config.rewind else None,
        history=history,
        on_progress=observer.progress,
        on_record=keeper.keep,
        checkpoint_every=config.checkpoint_every or None,
        on_checkpoint=keeper.save_between if config.checkpoint_every else None,
        should_stop=observer.should_stop,
    )


def _run_facts(
    corpus: Corpus, baselines: dict[str, float], device: str, parts: list[Part]
) -> dict[str, Any]:
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
        "parts": parts,
    }
