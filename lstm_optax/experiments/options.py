"""What an experiment is told, as frozen dataclasses; no JAX here, so that `--help` is quick."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from lstm_optax.names import OPTIMIZER_NAMES, check_optimizer

__all__ = ["OptionError", "SampleConfig", "TrainConfig"]

DECAYING_OPTIMIZERS = (
    "nadamw",
    "awd_sgd",
    "optax.adamw",
    "optax.lion",
    "optax.contrib.muon",
    "optax.contrib.schedule_free_adamw",
)
"""The optimizers with a weight decay per unit of learning rate, known before JAX is imported.

`optax.adafactor` has a decay too, but one that the learning rate does not scale.
"""

RESCALING_OPTIMIZERS = ("awd_sgd",)
"""The optimizers that scale their own rate by the length of a window of --vary-window."""

OptimizerName = Annotated[
    str, tyro.conf.arg(metavar="NAME", help=f"Optimizer: {', '.join(OPTIMIZER_NAMES)}.")
]
Schedule = Literal["constant", "cosine", "linear"]
Dtype = Literal["float32", "bfloat16"]


class OptionError(ValueError):
    """An option that cannot be; the message names it and the remedy."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the numbers of a run."""

    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """UTF-8 text file to learn; by default the help topics that ship with Python."""

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
    """Bound on each entry of the gradient by the gates' pre-activations, at every time step of
    back-propagation through time, such as 10; 0 for no clipping."""

    guard: int = 0
    """Refuse steps that would leave a gradient, moment or parameter that is not finite, and give up
    after so many in a row; 0 stops at the first loss or gradient that is not finite."""

    weight_decay: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Decoupled weight decay per unit of learning rate, 0 or more; by default the optimizer's."""

    embedding: int = 64
    """Features of a character's vector, at least 1."""

    hidden: int = 256
    """Hidden units of each LSTM layer, at least 1."""

    layers: int = 1
    """LSTM layers, at least 1."""

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
    """Draw the length of each window at random about --window, with the learning rate in
    proportion."""

    steps: int = 400
    """Steps to train for, at least 1."""

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
    """Devices that share the rows of a batch, a number that divides --batch; 0 for as many as there
    are accelerators, or else cores, with 8 rows or more for each."""

    def check(self) -> None:
        """Raise OptionError for the first value that cannot be."""
        try:
            check_optimizer(self.optimizer)
        except ValueError as error:
            raise OptionError(f"--optimizer: {error}") from None
        for name in ("embedding", "hidden", "layers", "batch", "window"):
            _check(name, getattr(self, name), "at least 1", lambda x: x >= 1)
        for name in ("steps", "eval_every", "patience"):
            _check(name, getattr(self, name), "at least 1", lambda x: x >= 1)
        _check("learning_rate", self.learning_rate, "above 0", lambda x: x > 0)
        _check_choice("schedule", self.schedule, get_args(Schedule))
        _check("warmup", self.warmup, f"from 0 to {self.steps - 1}", lambda x: 0 <= x < self.steps)
        for name in ("clip", "clip_gates"):
            _check(name, getattr(self, name), "0 or more", lambda x: x >= 0)
        _check("guard", self.guard, "0 or more", lambda x: x >= 0)
        for name in ("dropout", "embedding_dropout", "weight_dropout"):
            _check(name, getattr(self, name), "from 0 to below 1", lambda x: 0 <= x < 1)
        for name in ("ar", "tar"):
            _check(name, getattr(self, name), "0 or more", lambda x: x >= 0)
        _check("seed", self.seed, "from 0 to 2³² − 1", lambda x: 0 <= x < 2**32)
        _check_choice("dtype", self.dtype, get_args(Dtype))
        _check("devices", self.devices, "0 or more", lambda x: x >= 0)
        self._check_together()

    def _check_together(self) -> None:
        if self.weight_decay is not None:
            _check("weight_decay", self.weight_decay, "0 or more", lambda x: x >= 0)
            if self.optimizer not in DECAYING_OPTIMIZERS:
                raise OptionError(
                    f"--weight-decay: {self.optimizer} has none; these have: "
                    f"{', '.join(DECAYING_OPTIMIZERS)}"
                )
        if self.locked_dropout and not self.dropout:
            raise OptionError("--locked-dropout needs a --dropout above 0: it says of which kind")
        if self.vary_window and self.optimizer == "optax.contrib.schedule_free_adamw":
            raise OptionError(
                f"--vary-window: {self.optimizer} averages steps that cannot be scaled by the "
                "length of a window; take another optimizer"
            )
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


def _check(name: str, value: float, expected: str, holds: Callable[[float], bool]) -> None:
    if not abs(value) < math.inf:
        expected += " and finite"
    elif holds(value):
        return
    raise OptionError(f"--{name.replace('_', '-')} is {value}, but must be {expected}")


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
    """Characters to write, at least 1."""

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
        _check("length", self.length, "at least 1", lambda x: x >= 1)
        _check("temperature", self.temperature, "0 or more", lambda x: x >= 0)
        _check("seed", self.seed, "from 0 to 2³² − 1", lambda x: 0 <= x < 2**32)
        unknown = sorted(set(self.prompt or "") - set(vocabulary)) if vocabulary else []
        if unknown:
            some = ", ".join(map(repr, unknown[:5])) + (", …" if unknown[5:] else "")
            raise OptionError(
                f"--prompt: the run's text has no {some}: leave such characters out, or train on "
                "a text that has them"
            )
