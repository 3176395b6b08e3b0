"""What an experiment is told, as frozen dataclasses; no JAX here, so that `--help` is quick."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from lstm_optax.names import DECAYING_OPTIMIZERS, OPTIMIZER_NAMES, check_optimizer

__all__ = ["OptionError", "SampleConfig", "TrainConfig"]

MOST_STEPS = 2**31 - 1  # what the state of a training can count to
MOST_UNITS = 2**20  # of a layer, and of a character's vector
MOST_LAYERS = 100
MOST_VALIDATION = 100_000  # characters that validate by default
MOST_CHARACTERS = 10_000_000  # of a sample
SMALLEST, LARGEST = 1.2e-38, 3.4e38  # of the numbers that float32 holds

OptimizerName = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Optimizer: {', '.join(OPTIMIZER_NAMES)}; or another that `explain` takes, such as "
        "presets.torch.NAdam or optax.adam.",
    ),
]
Length: Any = tyro.conf.create_mutex_group(required=False, title="length of the run")
Schedule = Literal["constant", "cosine", "linear"]
Dtype = Literal["float32", "bfloat16"]


class OptionError(ValueError):
    """An option that cannot be; the message names it and the remedy."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the numbers of a run."""

    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Text file to learn, or a pipe; by default the help topics that ship with Python."""

    encoding: Annotated[str, tyro.conf.arg(metavar="NAME")] = "utf-8"
    """Encoding of the text file, by the name that Python gives it."""

    validation: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Characters at the text's end that validate; by default a tenth of it, at most 100,000."""

    optimizer: OptimizerName = "nadam"
    """Name of an optimizer."""

    learning_rate: float = 1.6e-2
    """Peak learning rate, above 0."""

    schedule: Schedule = "cosine"
    """Course of the learning rate after the warmup; cosine and linear end at 0."""

    warmup: int = 0
    """Steps in which the learning rate rises from 0, fewer than the steps."""

    clip: float = 1.0
    """Largest norm of the gradient, beyond which it is scaled down; 0 for no clipping."""

    clip_gates: float = 0.0
    """Bound on the gradient of the gates, at every time step, such as 10; 0 for no clipping."""

    guard: int = 0
    """Skip steps that are not finite, and give up after so many in a row; 0 stops at the first."""

    weight_decay: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Weight decay, as the optimizer defines it, 0 or more; by default the optimizer's."""

    embedding: int = 64
    """Features of a character's vector, from 1 to 1,048,576."""

    hidden: int = 256
    """Hidden units of each LSTM layer, from 1 to 1,048,576."""

    layers: int = 1
    """LSTM layers, from 1 to 100."""

    dropout: float = 0.0
    """Probability that a non-recurrent connection is dropped, from 0 to below 1."""

    locked_dropout: bool = False
    """Drop the same connections of a row at all steps of a window."""

    embedding_dropout: float = 0.0
    """Probability that a character's vector is zero for a window, from 0 to below 1."""

    weight_dropout: float = 0.0
    """Probability that a recurrent weight is dropped for a window, from 0 to below 1."""

    ar: float = 0.0
    """Weight in the loss of the mean square of the last layer's outputs, 0 or more."""

    tar: float = 0.0
    """Weight in the loss of the mean square of their change from step to step, 0 or more."""

    tied: bool = False
    """Use the embedding as output layer; needs --embedding equal to --hidden."""

    batch: int = 32
    """Rows of text read side by side, at least 1."""

    window: int = 64
    """Characters of each row in one step, through which gradients flow; at least 1."""

    vary_window: bool = False
    """Draw the length of each window about --window, with the learning rate in proportion."""

    steps: Annotated[int, Length] = 400
    """Steps to train for, at least 1."""

    epochs: Annotated[float | None, tyro.conf.arg(metavar="FLOAT"), Length] = None
    """Passes over the text to train for, above 0, in place of steps."""

    eval_every: int = 50
    """Steps from one evaluation, record and checkpoint to the next, at least 1."""

    patience: int = 10
    """End early after this many evaluations without improvement, at least 1."""

    seed: int = 0
    """Seed of the parameters, the dropout and the lengths of --vary-window, 0 or more."""

    diagnose: bool = False
    """At each evaluation, measure the gradient inside the LSTM: per gate and per time step."""

    dtype: Dtype = "float32"
    """Dtype of the products; parameters and state are float32."""

    devices: int = 0
    """Devices that share the rows, a divisor of --batch; 0 for all with 8 rows or more for each."""

    def check(self) -> None:
        """Raise OptionError for the first value that cannot be."""
        try:
            check_optimizer(self.optimizer)
        except ValueError as error:
            raise OptionError(f"--optimizer: {error}") from None
        for name, most in (
            dict(embedding=MOST_UNITS, hidden=MOST_UNITS, layers=MOST_LAYERS)
            | dict.fromkeys(("batch", "window", "steps", "eval_every", "patience"), MOST_STEPS)
        ).items():
            check_integer(name, getattr(self, name), 1, most)
        if self.validation is not None:
            check_integer("validation", self.validation, 2)
        check_number("learning_rate", self.learning_rate, "above 0", lambda x: x >= SMALLEST)
        _check_choice("schedule", self.schedule, get_args(Schedule))
        if self.epochs is None:
            check_integer("warmup", self.warmup, 0, self.steps - 1)
        else:
            check_number("epochs", self.epochs, "above 0", lambda x: x > 0)
            check_integer("warmup", self.warmup, 0)
        for name in ("clip", "clip_gates"):
            check_number(name, getattr(self, name), "0 or more", lambda x: x == 0 or x >= SMALLEST)
        check_integer("guard", self.guard, 0)
        for name in ("dropout", "embedding_dropout", "weight_dropout"):
            check_number(name, getattr(self, name), "from 0 to below 1", lambda x: 0 <= x < 1)
        for name in ("ar", "tar"):
            check_number(name, getattr(self, name), "0 or more", lambda x: x >= 0)
        check_integer("seed", self.seed, 0, 2**32 - 1)
        _check_choice("dtype", self.dtype, get_args(Dtype))
        check_integer("devices", self.devices, 0)
        self._check_together()

    def _check_together(self) -> None:
        if self.epochs is not None and self.steps != TrainConfig.steps:
            raise OptionError(
                f"--steps is {self.steps} and --epochs {self.epochs}: take one of them"
            )
        if self.text is None and self.encoding != TrainConfig.encoding:
            raise OptionError(f"--encoding {self.encoding} needs a --text FILE, which it decodes")
        if self.weight_decay is not None:
            check_number("weight_decay", self.weight_decay, "0 or more", lambda x: x >= 0)
            if self.optimizer in OPTIMIZER_NAMES and self.optimizer not in DECAYING_OPTIMIZERS:
                raise OptionError(
                    f"--weight-decay: {self.optimizer} has none; these have: "
                    f"{', '.join(DECAYING_OPTIMIZERS)}"
                )
        if self.locked_dropout and not self.dropout:
            raise OptionError("--locked-dropout needs a --dropout above 0: it says of which kind")
        if self.tied and self.embedding != self.hidden:
            raise OptionError(
                f"--tied needs --embedding equal to --hidden, but they are {self.embedding} "
                f"and {self.hidden}"
            )
        if self.devices and self.batch % self.devices:
            some = [n for n in range(1, min(self.batch, 1000) + 1) if self.batch % n == 0]
            raise OptionError(
                f"--devices {self.devices} does not divide --batch {self.batch}; these do: "
                f"{', '.join(map(str, some))}"
            )


def check_number(name: str, value: float, expected: str, holds: Callable[[float], bool]) -> None:
    """Raise OptionError for an option that does not hold, or not in float32."""
    if not abs(value) < math.inf:
        expected += " and finite"
    elif abs(value) > LARGEST:
        expected += f" and at most {LARGEST}, which float32 holds"
    elif holds(value):
        return
    elif 0 < value < SMALLEST:
        expected += f" and at least {SMALLEST}, which float32 holds"
    raise OptionError(f"--{name.replace('_', '-')} is {value}, but must be {expected}")


def check_integer(name: str, value: int, least: int, most: int = MOST_STEPS) -> None:
    """Raise OptionError for an option that is no integer or out of its range."""
    try:
        integer = operator.index(value)
    except TypeError:
        expected = "an integer"
    else:
        if least <= integer <= most:
            return
        expected = f"at least {least}" if integer < least else f"at most {most:,}"
    shown = str(value) if len(str(value)) <= 30 else f"{str(value)[:20]}…"
    raise OptionError(f"--{name.replace('_', '-')} is {shown}, but must be {expected}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"--{name} is {value!r}, but must be one of {', '.join(choices)}")


@dataclass(frozen=True)
class SampleConfig:
    """What to write with a trained model."""

    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What the text begins with, in characters of the run's text; by default "The ", or where
    that cannot be, the first of them in order."""

    length: int = 300
    """Characters to write, from 1 to 10,000,000."""

    temperature: float = 0.7
    """0 takes the likeliest character each time, 1 samples as the model predicts; 0 or more."""

    seed: int = 0
    """Seed of the sampling, 0 or more."""

    def check(self, vocabulary: str | None = None) -> None:
        """Raise OptionError for the first value that cannot be.

        Args:
          vocabulary: the characters of the run's text, to look for those of the prompt in.
        """
        if self.prompt == "":
            raise OptionError("--prompt is empty: give at least one character")
        check_integer("length", self.length, 1, MOST_CHARACTERS)
        check_number("temperature", self.temperature, "0 or more", lambda x: x >= 0)
        check_integer("seed", self.seed, 0, 2**32 - 1)
        unknown = sorted(set(self.prompt or "") - set(vocabulary)) if vocabulary else []
        if unknown:
            some = ", ".join(map(repr, unknown[:5])) + (", …" if unknown[5:] else "")
            raise OptionError(
                f"--prompt: the run's text has no {some}: leave such characters out, or train on "
                "a text that has them"
            )
