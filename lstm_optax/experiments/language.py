"""A character language model made ready for training: text, model, loss, optimizer."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lstm_optax.data import (
    VaryingWindows,
    Vocabulary,
    Windows,
    ngram_losses,
    read_text,
    split,
    topics_text,
)
from lstm_optax.experiments.options import RESCALING_OPTIMIZERS, TrainConfig
from lstm_optax.lstm import CotangentClip
from lstm_optax.models import (
    LanguageModel,
    activation_regularizer,
    temporal_activation_regularizer,
    token_losses,
)
from lstm_optax.optimizers import OPTIMIZERS
from lstm_optax.training import TrainState, init_state
from lstm_optax.transforms import clip_by_global_norm, guard, scale_by_rate_factor


@dataclass(frozen=True)
class Corpus:
    """A text cut into windows, and what the n-gram models make of it."""

    name: str
    sha256: str
    characters: int
    vocabulary: Vocabulary
    train: Windows | VaryingWindows
    validation: Windows
    floors: dict[str, float]  # nats per character


def load_corpus(
    path: Path | None, batch: int, window: int, *, vary_seed: int | None = None
) -> Corpus:
    """Read a text, or the help topics of Python, and cut it for `batch` rows and `window` steps.

    With `vary_seed`, the windows to train on vary in length.
    """
    text = topics_text() if path is None else read_text(path)
    vocabulary = Vocabulary.of(text)
    train, validation = split(vocabulary.encode(text))
    if vary_seed is None:
        windows = Windows.of(train, batch, window)
    else:
        windows = VaryingWindows.of(train, batch, window, seed=vary_seed)
    return Corpus(
        name="pydoc_data.topics" if path is None else str(path),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        characters=len(text),
        vocabulary=vocabulary,
        train=windows,
        validation=Windows.of(validation, batch, window, pad=True),
        floors=ngram_losses(train, validation, len(vocabulary)),
    )


def make_model(config: TrainConfig, vocabulary: int) -> LanguageModel:
    """Return the language model of a configuration, initialised from its seed."""
    return LanguageModel(
        vocabulary,
        embedding_features=config.embedding,
        hidden_features=config.hidden,
        num_layers=config.layers,
        dropout=config.dropout,
        locked_dropout=config.locked_dropout,
        embedding_dropout=config.embedding_dropout,
        weight_dropout=config.weight_dropout,
        tied=config.tied,
        cotangent_clip=CotangentClip(gates=config.clip_gates) if config.clip_gates else None,
        dtype=jnp.dtype(config.dtype),
        rngs=nnx.Rngs(params=config.seed),  # none for dropout: the loss is given a key
    )


def make_state(
    config: TrainConfig, model: LanguageModel, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the state before the first step."""
    _, params = nnx.split(model)
    carry = model.lstm.initial_carry(config.batch)
    return init_state(params, optimizer, carry, jax.random.key(config.seed))


def make_losses(
    graphdef: nnx.GraphDef, *, ar: float = 0.0, tar: float = 0.0
) -> tuple[Callable, Callable]:
    """Return the loss to train with and the sums to evaluate with, as pure functions of params.

    The first has the two terms on the activations in it, with these weights.
    """

    def loss(params: Any, carry: Any, batch: Any, key: jax.Array):
        model: LanguageModel = nnx.merge(graphdef, params)
        options = dict(seq_lengths=batch.lengths, resets=batch.resets)
        raw, dropped, carry = model.hidden(
            batch.inputs, carry, **options, rngs=nnx.Rngs(dropout=key)
        )
        total, count = token_losses(model.logits(dropped), batch.targets)
        value = total / count
        if ar:
            value += ar * activation_regularizer(dropped, batch.targets >= 0)
        if tar:
            value += tar * temporal_activation_regularizer(raw, batch.targets >= 0)
        return value, carry

    def measure(params: Any, carry: Any, batch: Any):
        model = nnx.merge(graphdef, params)
        logits, carry = model(batch.inputs, carry, resets=batch.resets, deterministic=True)
        return token_losses(logits, batch.targets), carry

    return loss, measure


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """Return the learning rate as a function of the step, counted from 0."""
    peak, rest = config.learning_rate, config.steps - config.warmup
    course = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
    }[config.schedule]()
    if config.warmup == 0:
        return course
    rise = optax.linear_schedule(0.0, peak, config.warmup)
    return optax.join_schedules([rise, course], [config.warmup])


def make_optimizer(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a configuration, behind the clip of the gradient's norm, guarded."""
    decay = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    clip = [clip_by_global_norm(config.clip)] if config.clip else []
    within = config.optimizer in RESCALING_OPTIMIZERS  # whose averages must see the scaled step
    factor = [scale_by_rate_factor()] if config.vary_window and not within else []
    optimizer = optax.chain(*clip, OPTIMIZERS[config.optimizer](schedule, **decay), *factor)
    return guard(optimizer, give_up_after=config.guard) if config.guard else optimizer


def make_extra_args(config: TrainConfig) -> Callable[[Any], dict[str, Any]]:
    """Return the function from a batch to what the optimizer is told of it."""
    if not config.vary_window:
        return lambda batch: {}
    return lambda batch: {"rate_factor": batch.lengths[0] / config.window}
