"""DeepOBS's `tolstoi_char_rnn`: characters of War and Peace, as in its TensorFlow 1 version."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from lstm_optax.data import Vocabulary, Windows, split
from lstm_optax.lstm import LSTM
from lstm_optax.models import LanguageModel
from lstm_optax.reproductions.plan import Group, Options, Plan
from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies.contender import optimizer_factory
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial import REPORT, make_trials
from lstm_optax.studies.trial_program import Factory
from lstm_optax.tasks import Task
from lstm_optax.tasks.text_task import make_text_task

DROPOUT = 0.2  # of the inputs and of the outputs of each layer, so 1 − .8² = .36 between two layers

OPTIMIZERS: dict[str, tuple[str, dict[str, float], float]] = {
    "Adam": ("presets.tf1.AdamOptimizer", {}, 2.5e-3),
    "SGD": ("sgd", {}, 1.58),
    "Momentum": ("presets.tf1.MomentumOptimizer", {"momentum": 0.99}, 0.0398),
}
"""The optimizer of each row, its settings and its learning rate."""

QUICK = dict(hidden=8, batch=4, window=8)


def make_plan(options: Options) -> Plan:
    """Return the trials: each optimizer with each seed, at a constant learning rate."""
    rules = {row: [optimizer, settings] for row, (optimizer, settings, _) in OPTIMIZERS.items()}
    return plan_of(options, OPTIMIZERS, {"rules": rules})


def plan_of(
    options: Options,
    optimizers: Mapping[str, tuple[str | Factory, Mapping[str, float], float]],
    facts: Mapping[str, Any],
) -> Plan:
    """Return the trials of the model with other optimizers, given as in `OPTIMIZERS`."""
    text = (options.data or b"").decode("utf-8")
    sizes: dict[str, int] = QUICK if options.quick else {}
    task = char_rnn(text, epochs=options.epochs or 1, **sizes)
    common: dict[str, Any] = dict(schedule="constant", clip=0.0, steps=task.steps)
    groups = [
        Group(
            row,
            task,
            optimizer_factory(optimizer, settings=settings, **common),
            make_trials(row, {"learning_rate": (rate,)}, range(options.seeds), REPORT),
        )
        for row, (optimizer, settings, rate) in optimizers.items()
    ]
    return Plan(options.reproduction.name, groups, facts)


def measure(study: StudyRecords, reproduction: Reproduction) -> dict[tuple[str, str], list[float]]:
    """Return the test losses of the seeds by row and epoch, at the published epochs."""
    epoch_steps = study.study["task"]["eval_every"]
    found: dict[tuple[str, str], list[float]] = {}
    for trial in study.trials.values():
        for record in trial.evaluations if trial.end else []:
            epoch = f"epoch {round(record['step'] / epoch_steps)}"
            value = math.nan if record["test"] is None else record["test"]
            found.setdefault((trial.optimizer, epoch), []).append(value)
    epochs = {number.at for number in reproduction.published}
    return {key: values for key, values in found.items() if key[1] in epochs}


def char_rnn(
    text: str, *, hidden: int = 128, batch: int = 50, window: int = 50, epochs: int = 3
) -> Task:
    """Return the task: the first four fifths of a text are for training, the rest for the test.

    Each part is cut into rows of whole windows. The carry runs from window to window and is zero at
    the start of an epoch and of the evaluation. An evaluation follows each epoch.

    Args:
      text: with its line ends as they are.
      hidden: units of each layer, and features of the embedding.
      batch: rows of text in a batch.
      window: characters of each row in a step.
      epochs: passes over the training text.

    Raises:
      TextError: a text that is too short.
    """
    vocabulary = Vocabulary.of(text)
    parts = split(vocabulary.encode(text), 0.2)
    windows, held = (whole_windows(codes, batch, window) for codes in parts)
    return make_text_task(
        "char_rnn",
        partial(make_model, symbols=len(vocabulary), hidden=hidden),
        windows,
        {"test": held},
        steps=epochs * len(windows),
        eval_every=len(windows),
        metric="test",
        settings=dict(hidden=hidden, batch=batch, window=window, symbols=len(vocabulary)),
    )


def whole_windows(codes: NDArray[np.int32], batch: int, window: int) -> Windows:
    """Return rows that consist of whole windows and follow each other in the text."""
    size = batch * window
    return Windows.of(codes[: (len(codes) - 1) // size * size + 1], batch, window)


def make_model(key: jax.Array, symbols: int, hidden: int) -> LanguageModel:
    """Return the model with the initial values of TensorFlow 1.

    Each array is uniform with Glorot's limit √(6/(rows + columns)). Input and recurrent kernels of
    a layer are one array. The limit of the output bias is √(6/(2 · symbols)). The bias of a layer
    is 1 at the forget gate, which TensorFlow adds in the layer, else 0.
    """
    rngs = nnx.Rngs(params=0)  # without a stream for the dropout: each call passes its own
    between = 1 - (1 - DROPOUT) ** 2
    lstm = LSTM(hidden, hidden, num_layers=2, dropout=between, rngs=rngs)
    model = LanguageModel(symbols, lstm, dropout=DROPOUT, rngs=rngs)
    keys = iter(jax.random.split(key, 5))
    glorot = jax.nn.initializers.glorot_uniform()
    model.embedding.embedding[...] = glorot(next(keys), (symbols, hidden))
    for layer in model.lstm.layers:
        kernel = glorot(next(keys), (2 * hidden, 4 * hidden))
        weights = layer["forward"]
        weights.kernel_ih[...], weights.kernel_hh[...] = kernel[:hidden], kernel[hidden:]
    model.output.kernel[...] = glorot(next(keys), (hidden, symbols))
    limit = math.sqrt(3 / symbols)
    model.output.bias[...] = jax.random.uniform(next(keys), (symbols,), minval=-limit, maxval=limit)
    return model
