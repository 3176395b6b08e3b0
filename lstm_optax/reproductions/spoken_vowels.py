"""Japanese Vowels: nine speakers, told apart by 7 to 29 frames of two vowels."""

import io
import math
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from lstm_optax.lstm import LSTM
from lstm_optax.models import SequenceModel
from lstm_optax.reproductions.chosen_rate import chosen_rate
from lstm_optax.reproductions.last_value import last_value
from lstm_optax.reproductions.plan import Group, Options, Plan
from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies.contender import optimizer_factory
from lstm_optax.studies.outcomes import Metric, value_at_end
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial import REPORT, make_trials
from lstm_optax.tasks import Task
from lstm_optax.tasks.lstm_model import mean_loss

SPEAKERS, FEATURES, FRAMES = 9, 12, 29
HELD_OUT = 6  # of the 30 training utterances of each speaker, for validation
PARTS = "TRAIN", "TEST"
FILES = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"  # in the wheel
ROW, AT = "LSTM", "test accuracy"
DROPOUT = 0.5  # before the output layer
RATES = (0.001, 0.003, 0.01, 0.03)
SIZES = dict(hidden=64, steps=1000, eval_every=100)
QUICK = dict(hidden=4, steps=2, eval_every=2)


class Utterances(NamedTuple):
    """A batch of utterances, time-major, padded with zeros to `FRAMES` steps."""

    inputs: NDArray[np.float32]  # [FRAMES, B, FEATURES]
    lengths: NDArray[np.int32]  # [B]
    targets: NDArray[np.int32]  # [B]

    def rows(self, index: Any) -> "Utterances":
        """Return the utterances of an index."""
        return Utterances(self.inputs[:, index], self.lengths[index], self.targets[index])


def make_plan(options: Options) -> Plan:
    """Return the trials: Nadam with each rate, a cosine schedule, and each seed."""
    task = speakers(options.data or b"", **(QUICK if options.quick else SIZES))
    factory = optimizer_factory("nadam", schedule="cosine", clip=1.0, steps=task.steps)
    trials = make_trials(ROW, {"learning_rate": RATES}, range(options.seeds), REPORT)
    return Plan(options.reproduction.name, [Group(ROW, task, factory, trials)], {"rates": RATES})


def measure(study: StudyRecords, reproduction: Reproduction) -> dict[tuple[str, str], list[float]]:
    """Return the last accuracies of the seeds, at the rate that validation chooses."""
    chosen = chosen_rate(study, ROW, lambda trial: value_at_end(trial, Metric("validation")))
    if chosen is None:
        return {}
    rate, trials = chosen
    return {
        (ROW, AT): [last_value(trial, "test_accuracy") for trial in trials],
        (ROW, f"validation accuracy, rate {rate:g}"): [
            last_value(trial, "validation_accuracy") for trial in trials
        ],
    }


def speakers(wheel: bytes, *, hidden: int, steps: int, eval_every: int, batch: int = 32) -> Task:
    """Return the task of naming the speaker of an utterance.

    The last `HELD_OUT` training utterances of each speaker are for validation.

    Args:
      wheel: the wheel of aeon, a ZIP archive that contains the data.
      hidden: units of each direction of the layer.
      steps, eval_every: defaults of the task.
      batch: number of utterances in a batch, drawn at random from those for training.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        known, test = (read_series(archive.read(FILES.format(part)).decode()) for part in PARTS)
    number = np.zeros(len(known.targets), int)  # of the utterance of its speaker, from the last
    for speaker in range(SPEAKERS):
        of_speaker = np.flatnonzero(known.targets == speaker)
        number[of_speaker] = np.arange(len(of_speaker))[::-1]
    train, validation = known.rows(number >= HELD_OUT), known.rows(number < HELD_OUT)

    def build(key: jax.Array) -> SequenceModel:
        rngs = nnx.Rngs(params=key)
        lstm = LSTM(FEATURES, hidden, bidirectional=True, rngs=rngs)
        return SequenceModel(lstm, SPEAKERS, dropout=DROPOUT, rngs=rngs)

    graphdef = nnx.graphdef(nnx.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0))))

    def logits_of(params: Any, data: Utterances, **dropout: Any) -> jax.Array:
        model: SequenceModel = nnx.merge(graphdef, params)
        inputs, lengths = jnp.asarray(data.inputs), jnp.asarray(data.lengths)
        return model(inputs, seq_lengths=lengths, **dropout)[0]

    def batches(position: int, seed: int) -> Utterances:
        rng = np.random.default_rng([seed, position])
        return train.rows(rng.choice(len(train.targets), batch))

    def loss(params: Any, carry: Any, batch: Utterances, key: jax.Array):
        logits = logits_of(params, batch, rngs=nnx.Rngs(dropout=key))
        return mean_loss(logits, batch.targets), carry

    def evaluate(params: Any) -> dict[str, jax.Array]:
        metrics = {}
        for part, data in {"validation": validation, "test": test}.items():
            logits = logits_of(params, data, deterministic=True)
            metrics[part] = mean_loss(logits, data.targets)
            metrics[f"{part}_accuracy"] = jnp.mean(jnp.argmax(logits, axis=-1) == data.targets)
        return metrics

    return Task(
        name="speakers",
        init=lambda key: nnx.state(build(key)),
        loss=loss,
        batches=batches,
        evaluate=evaluate,
        steps=steps,
        eval_every=eval_every,
        baselines={"uniform": math.log(SPEAKERS)},
        settings=dict(hidden=hidden, batch=batch, held_out=HELD_OUT),
    )


def read_series(text: str) -> Utterances:
    """Return the series of a file in the .ts format: features by ":", frames by ",", the class."""
    lines = text.partition("@data")[2].split()
    padded = np.zeros((FRAMES, len(lines), FEATURES), np.float32)
    lengths, targets = np.zeros((2, len(lines)), np.int32)
    for row, line in enumerate(lines):
        *features, speaker = line.split(":")
        frames = np.array([feature.split(",") for feature in features], np.float32).T
        padded[: len(frames), row], lengths[row] = frames, len(frames)
        targets[row] = int(speaker) - 1
    return Utterances(padded, lengths, targets)
