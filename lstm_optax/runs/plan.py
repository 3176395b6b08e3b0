"""What a run will do, in words, before it begins."""

import jax

from lstm_optax.runs.corpus import Corpus
from lstm_optax.runs.options import TrainConfig
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.training import TrainState


def plan_of(
    config: TrainConfig, corpus: Corpus, run: RunFolder, state: TrainState, device: str
) -> list[tuple[str, str]]:
    """Return what a run will do, as pairs of a name and a value."""
    count, step = sum(leaf.size for leaf in jax.tree.leaves(state.params)), int(state.step)
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
        f"{_amount(corpus.passes(config.steps))} passes over the text"
    )
    times = -(-config.steps // config.eval_every)
    validation = (
        f"the last {len(corpus.codes[1]):,} characters, {len(corpus.validation):,} windows, "
        f"{times:,} {'times' if times > 1 else 'time'}"
    )
    pairs = [
        ("text", f"{corpus.name}, {corpus.characters:,} characters, {kinds} of them distinct"),
        ("model", ", ".join(model)),
        ("optimizer", ", ".join(optimizer)),
        ("training", training),
        ("validation", validation),
        ("device", device),
        ("run folder", str(run.path)),
    ]
    return pairs + ([("resumed", f"after step {step:,} of {config.steps:,}")] if step else [])


def _amount(passes: float) -> str:
    """Return a number of passes in one digit after the point, or in three if they are few."""
    return f"{passes:.1f}" if passes >= 1 else f"{passes:.3g}"


def _dropouts(config: TrainConfig) -> list[str]:
    rates = {
        "locked dropout" if config.locked_dropout else "dropout": config.dropout,
        "embedding dropout": config.embedding_dropout,
        "weight dropout": config.weight_dropout,
        "AR": config.ar,
        "TAR": config.tar,
    }
    return [f"{name} {rate:g}" for name, rate in rates.items() if rate]
