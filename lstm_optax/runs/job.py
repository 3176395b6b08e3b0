"""Prepare a training: choose the devices, check the memory, and build the model and optimizer."""

from dataclasses import replace
from typing import Any, NamedTuple

import optax
from flax import nnx

from lstm_optax.models import LanguageModel
from lstm_optax.runs.build import (
    abstract_state,
    make_model,
    make_optimizer,
    make_schedule,
    make_state,
)
from lstm_optax.runs.corpus import Corpus
from lstm_optax.runs.devices import find_devices, make_sharding
from lstm_optax.runs.memory import activation_bytes, check_memory
from lstm_optax.runs.options import TrainConfig
from lstm_optax.training import BatchSharding, TrainState


class Job(NamedTuple):
    """Everything that a training needs, except its folder."""

    config: TrainConfig  # with the chosen number of devices
    corpus: Corpus
    devices: list[Any]
    sharding: BatchSharding | None  # None for a single device
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    model: LanguageModel  # with the shapes and dtypes of its parameters

    def initial_state(self) -> TrainState:
        """Return the state before the first step, on the devices of the job."""
        config = self.config
        model = make_model(config, len(self.corpus.vocabulary))
        state = make_state(model, self.optimizer, rows=config.batch, seed=config.seed)
        return self.sharding.state(state) if self.sharding else state


def prepare(config: TrainConfig, corpus: Corpus) -> Job:
    """Return the job of a configuration.

    Raises:
      OptionError: there are too few devices or there is too little memory, or the optimizer cannot
        be used.
    """
    devices = find_devices(config.batch, config.devices)
    config = replace(config, devices=len(devices))
    schedule = make_schedule(config)
    optimizer = make_optimizer(config, schedule)
    vocabulary = len(corpus.vocabulary)
    state = abstract_state(config, vocabulary, optimizer)
    sharding = make_sharding(devices, shard_state=config.shard_state)
    check_memory(state, activation_bytes(config, vocabulary), devices, shard=config.shard_state)
    model = nnx.eval_shape(lambda: make_model(config, vocabulary))
    return Job(config, corpus, devices, sharding, schedule, optimizer, model)
