"""Summary of a run, shown before it starts."""

from pathlib import Path

import jax

from lstm_optax.runs.corpus import Corpus
from lstm_optax.runs.options import TrainConfig
from lstm_optax.training import TrainState


def plan_of(
    config: TrainConfig, corpus: Corpus, state: TrainState, *, folder: Path, device: str
) -> list[tuple[str, str]]:
    """Return a summary of a run as pairs of a name and a value."""
    count, step = sum(leaf.size for leaf in jax.tree.leaves(state.params)), int(state.step)
    text = f"{corpus.name}, {corpus.tokens:,} {corpus.unit}s, {len(corpus.vocabulary):,} distinct"
    pairs = [
        ("text", text),
        ("model", _describe_model(config, count)),
        ("optimizer", _describe_optimizer(config)),
        ("training", _describe_training(config, corpus)),
        ("validation", _describe_validation(config, corpus)),
        ("device", device),
        ("run folder", str(folder)),
    ]
    return pairs + ([("resumed", f"after step {step:,} of {config.steps:,}")] if step else [])


def _describe_model(config: TrainConfig, count: int) -> str:
    rates = {
        "locked dropout" if config.locked_dropout else "dropout": config.dropout,
        "embedding dropout": config.embedding_dropout,
        "weight dropout": config.weight_dropout,
        "AR": config.ar,
        "TAR": config.tar,
    }
    parts = [
        f"LSTM, {config.layers} × {config.hidden:,} units, embedding {config.embedding:,}",
        *(["tied"] if config.tied else []),
        *(["adaptive softmax"] if config.softmax == "adaptive" else []),
        *(f"{name} {rate:g}" for name, rate in rates.items() if rate),
        f"{count:,} parameters, {config.dtype}",
    ]
    return ", ".join(parts)


def _describe_optimizer(config: TrainConfig) -> str:
    decay = config.weight_decay
    parts = [
        f"{config.optimizer}, learning rate {config.learning_rate:g} {config.schedule}",
        *([f"warmup {config.warmup:,} steps"] if config.warmup else []),
        *([f"weight decay {decay:g}"] if decay is not None else []),
        *config.set,
        f"clip {config.clip:g}" if config.clip else "no clip",
        *([f"gate clip ±{config.clip_gates:g}"] if config.clip_gates else []),
        *([f"guard, stops after {config.guard:,} skipped steps in a row"] if config.guard else []),
        *([f"at most {config.rewind:,} rewinds"] if config.rewind else []),
        *(["loss scaling"] if config.dtype == "float16" else []),
    ]
    return ", ".join(parts)


def _describe_training(config: TrainConfig, corpus: Corpus) -> str:
    passes = corpus.passes(config.steps)
    shown = f"{passes:.1f}" if passes >= 1 else f"{passes:.3g}"
    about = "about " if config.vary_window else ""
    return (
        f"{config.steps:,} steps of {config.batch} × {about}{config.window} {corpus.unit}s, "
        f"{shown} passes over the text"
    )


def _describe_validation(config: TrainConfig, corpus: Corpus) -> str:
    times = -(-config.steps // config.eval_every)
    return (
        f"{corpus.held_out}, {len(corpus.validation):,} windows, "
        f"{times:,} {'times' if times > 1 else 'time'}"
    )
