"""Build the parts of a training from its configuration: model, losses, optimizer and state."""

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
)
from lstm_optax.names import RESCALING_OPTIMIZERS
from lstm_optax.runs.constraints import OptionError, flag_of
from lstm_optax.runs.corpus import cutoffs_of
from lstm_optax.runs.hyper_parameters import parse_settings
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.runs.options import Schedule, TrainConfig
from lstm_optax.training import TrainState, init_state
from lstm_optax.transforms import (
    AverageState,
    TriggeredAverageState,
    clip_by_global_norm,
    find_states,
    guard,
    loss_scaling,
    scale_by_rate_factor,
)

AVERAGING_STATES = (AverageState, TriggeredAverageState, optax.contrib.ScheduleFreeState)


def make_model(config: TrainConfig, vocabulary: int) -> LanguageModel:
    """Return the language model of a configuration, initialised with its seed."""
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
        cutoffs=cutoffs_of(vocabulary) if config.softmax == "adaptive" else (),
        rngs=rngs,
    )


def make_state(
    model: LanguageModel, optimizer: optax.GradientTransformation, *, rows: int, seed: int
) -> TrainState:
    """Return the state before the first step, for batches of `rows` rows."""
    _, params = nnx.split(model)
    return init_state(params, optimizer, model.lstm.initial_carry(rows), jax.random.key(seed))


def make_losses(
    graphdef: nnx.GraphDef[Any], *, ar: float = 0.0, tar: float = 0.0
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the training loss and the measure for the evaluation, pure functions of params.

    Args:
      graphdef: of the language model.
      ar: weight of the activation regularisation in the training loss.
      tar: weight of the temporal activation regularisation in the training loss.
    """

    def loss(params: Any, carry: Any, batch: Any, key: jax.Array):
        model: LanguageModel = nnx.merge(graphdef, params)
        options = dict(seq_lengths=batch.lengths, resets=batch.resets)
        raw, dropped, carry = model.hidden(
            batch.inputs, carry, **options, rngs=nnx.Rngs(dropout=key)
        )
        total, count = model.losses(dropped, batch.targets)
        value = total / count
        if ar:
            value += ar * activation_regularizer(dropped, batch.targets >= 0)
        if tar:
            value += tar * temporal_activation_regularizer(raw, batch.targets >= 0)
        return value, carry

    def measure(params: Any, carry: Any, batch: Any):
        model: LanguageModel = nnx.merge(graphdef, params)
        options: dict[str, Any] = dict(resets=batch.resets, deterministic=True)
        _, hidden, carry = model.hidden(batch.inputs, carry, **options)
        return model.losses(hidden, batch.targets), carry

    return loss, measure


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """Return the learning rate as a function of the step number, counted from 0."""
    return named_schedule(config.schedule, config.learning_rate, config.steps, config.warmup)


def named_schedule(name: Schedule, peak: Any, steps: int, warmup: int = 0) -> optax.Schedule:
    """Return a schedule by name, as a function of the step number, counted from 0.

    Args:
      name: after the warmup; "cosine" and "linear" end at 0.
      peak: the largest learning rate; may be traced.
      steps: of the run.
      warmup: steps of a linear rise from 0.
    """
    rest = steps - warmup
    main = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
    }[name]()
    if warmup == 0:
        return main
    rise = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([rise, main], [warmup])


def make_optimizer(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a configuration, with gradient clipping, guard and loss scaling.

    Raises:
      OptionError: the optimizer is unknown, or does not accept a schedule or an option of its own.
    """
    name = config.optimizer
    options = parse_settings(name, config.set)
    factory = find_factory(name, given=options)
    if config.weight_decay is not None:
        if "weight_decay" not in factory.arguments:
            raise OptionError(f"--weight-decay: {name} has no weight decay; leave the option out")
        options["weight_decay"] = config.weight_decay
    clip = [clip_by_global_norm(config.clip)] if config.clip else []
    rescales = name in RESCALING_OPTIMIZERS  # scales the steps before it averages them
    scaled = (config.vary_window or config.rewind) and not rescales
    factor = [scale_by_rate_factor()] if scaled else []
    try:
        optimizer = optax.chain(*clip, factory(schedule, **options), *factor)
    except Exception as error:
        raise _untrainable_error(name, error) from error
    if config.guard:
        optimizer = guard(optimizer, max_consecutive_errors=config.guard)
    return loss_scaling(optimizer) if config.dtype == "float16" else optimizer


def abstract_state(
    config: TrainConfig, vocabulary: int, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the shapes and dtypes of the state before the first step, without computing it.

    Raises:
      OptionError: the optimizer fails on this model, its update changes the shapes or dtypes of the
        state, or its averages cannot take windows of random length.
    """

    def initial_state():
        model = make_model(config, vocabulary)
        return make_state(model, optimizer, rows=config.batch, seed=config.seed)

    def update(state):
        extra = {"rate_factor": jnp.ones(())} if config.vary_window else {}
        tx = optax.with_extra_args_support(optimizer)
        return tx.update(state.params, state.opt_state, state.params, **extra)

    try:
        state = jax.eval_shape(initial_state)
        updates, opt_state = jax.eval_shape(update, state)
        before, after = (state.opt_state, state.params), (opt_state, updates)
        if _shapes_and_dtypes(before) != _shapes_and_dtypes(after):
            raise TypeError("an update changes shapes or dtypes")
    except Exception as error:
        raise _untrainable_error(config.optimizer, error) from error
    averages = any(find_states(state.opt_state, kind) for kind in AVERAGING_STATES)
    if averages and config.optimizer not in RESCALING_OPTIMIZERS:
        _check_averaged_steps(config)
    return state


def _check_averaged_steps(config: TrainConfig) -> None:
    reasons = {"vary_window": "by the length of a window", "rewind": "after a rewind"}
    for name, reason in reasons.items():
        if getattr(config, name):
            raise OptionError(
                f"{flag_of(name)}: {config.optimizer} averages steps that cannot be scaled "
                f"{reason}; use another optimizer"
            )


def _shapes_and_dtypes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


def _untrainable_error(name: str, error: Exception) -> OptionError:
    reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return OptionError(
        f"--optimizer: {name} cannot be used here ({reason}); use another one, or train with it "
        "in Python"
    )


def make_extra_args(window: int | None) -> Callable[[Any], dict[str, Any]]:
    """Return a function from a batch to extra keyword arguments for the optimizer's `update`.

    Args:
      window: the length of a window for which the learning rate is not scaled; None if the windows
        do not vary.
    """
    if window is None:
        return lambda batch: {}
    return lambda batch: {"rate_factor": batch.lengths[0] / window}
