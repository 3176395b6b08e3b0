"""A character language model made ready for training: model, loss, optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx

from lstm_optax.lstm import LSTM, CotangentClip
from lstm_optax.models import (
    LanguageModel,
    activation_regularizer,
    temporal_activation_regularizer,
    token_losses,
)
from lstm_optax.names import RESCALING_OPTIMIZERS
from lstm_optax.runs.optimizer_lookup import find_factory, takes_decay
from lstm_optax.runs.options import OptionError, TrainConfig
from lstm_optax.training import TrainState, init_state
from lstm_optax.transforms import (
    AverageState,
    TriggeredAverageState,
    clip_by_global_norm,
    find_states,
    guard,
    scale_by_rate_factor,
)

AVERAGES = (AverageState, TriggeredAverageState, optax.contrib.ScheduleFreeState)


def make_model(config: TrainConfig, vocabulary: int) -> LanguageModel:
    """Return the language model of a configuration, initialised from its seed."""
    rngs = nnx.Rngs(params=config.seed)  # no stream for dropout: the loss receives a key
    dropout: dict[str, Any] = dict(dropout=config.dropout, locked_dropout=config.locked_dropout)
    lstm = LSTM(
        config.embedding,
        config.hidden,
        num_layers=config.layers,
        **(dropout if config.layers > 1 else {}),
        weight_dropout=config.weight_dropout,
        cotangent_clip=CotangentClip(gates=config.clip_gates) if config.clip_gates else None,
        dtype=jnp.dtype(config.dtype),
        rngs=rngs,
    )
    return LanguageModel(
        vocabulary,
        lstm,
        **dropout,
        embedding_dropout=config.embedding_dropout,
        tied=config.tied,
        rngs=rngs,
    )


def make_state(
    config: TrainConfig, model: LanguageModel, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the state before the first step."""
    _, params = nnx.split(model)
    carry = model.lstm.initial_carry(config.batch)
    return init_state(params, optimizer, carry, jax.random.key(config.seed))


def make_losses(
    graphdef: nnx.GraphDef[Any], *, ar: float = 0.0, tar: float = 0.0
) -> tuple[Callable[..., Any], Callable[..., Any]]:
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
    """Return the optimizer of a configuration, behind the clip of the gradient's norm, guarded.

    Raises:
      OptionError: there is no such optimizer, or it takes no schedule or no weight decay.
    """
    factory, name = find_factory(config.optimizer), config.optimizer
    decay = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    if decay and not takes_decay(name):
        raise OptionError(f"--weight-decay: {name} has none; leave it out")
    clip = [clip_by_global_norm(config.clip)] if config.clip else []
    within = name in RESCALING_OPTIMIZERS  # whose averages must see the scaled step
    factor = [scale_by_rate_factor()] if config.vary_window and not within else []
    try:
        optimizer = optax.chain(*clip, factory(schedule, **decay), *factor)
    except Exception as error:
        raise _untrainable(name, error) from error
    return guard(optimizer, max_consecutive_errors=config.guard) if config.guard else optimizer


def abstract_state(
    config: TrainConfig, vocabulary: int, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return shapes and dtypes of the state before the first step; nothing is computed.

    Raises:
      OptionError: the optimizer fails on this model, or cannot go on with the state it returns.
    """

    def begin():
        return make_state(config, make_model(config, vocabulary), optimizer)

    def update(state):
        extra = {"rate_factor": jnp.ones(())} if config.vary_window else {}
        tx = optax.with_extra_args_support(optimizer)
        return tx.update(state.params, state.opt_state, state.params, **extra)

    try:
        state = jax.eval_shape(begin)
        updates, after = jax.eval_shape(update, state)
        if _shapes(after) != _shapes(state.opt_state) or _shapes(updates) != _shapes(state.params):
            raise TypeError("an update changes shapes or dtypes")
    except Exception as error:
        raise _untrainable(config.optimizer, error) from error
    averages = any(find_states(state.opt_state, kind) for kind in AVERAGES)
    if config.vary_window and averages and config.optimizer not in RESCALING_OPTIMIZERS:
        raise OptionError(
            f"--vary-window: {config.optimizer} averages steps that cannot be scaled by the "
            "length of a window; take another optimizer"
        )
    return state


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


def _untrainable(name: str, error: Exception) -> OptionError:
    reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return OptionError(
        f"--optimizer: {name} cannot be trained with here ({reason}); take another, or train with "
        "it in Python"
    )


def make_extra_args(config: TrainConfig) -> Callable[[Any], dict[str, Any]]:
    """Return the function from a batch to what the optimizer is told of it."""
    if not config.vary_window:
        return lambda batch: {}
    return lambda batch: {"rate_factor": batch.lengths[0] / config.window}
