"""Command-line configuration; imports no JAX, so that `--help` stays fast."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lstm_optax.names import DECAYING_OPTIMIZERS, OPTIMIZER_NAMES, check_optimizer
from lstm_optax.runs.constraints import (
    Count,
    CountOrZero,
    NonNegative,
    NormBound,
    OptionError,
    OptionRange,
    Positive,
    Probability,
    Seed,
    check_fields,
    whole_numbers,
)
from lstm_optax.runs.hyper_parameters import split_settings

__all__ = ["SampleConfig", "TrainConfig"]

LOGGERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""The package of each option that sends the records to another program."""

MAX_UNITS = 2**20
MAX_VALIDATION = 100_000  # the default number of validation characters is at most this

OptimizerName = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME",
        help=f"Optimizer: {', '.join(OPTIMIZER_NAMES)}; or any other name that `lstm-optax "
        "explain` accepts, such as presets.torch.NAdam or optax.adam.",
    ),
]
Settings = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE"), tyro.conf.UseAppendAction
]
Units = Annotated[int, whole_numbers(1, MAX_UNITS)]
RunLength: Any = tyro.conf.create_mutex_group(required=False, title="length of the run")
Schedule = Literal["constant", "cosine", "linear"]
Dtype = Literal["float32", "bfloat16", "float16"]
Softmax = Literal["full", "adaptive"]


@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run: text, model, optimizer, schedule and evaluation."""

    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Text file, pipe, or folder of `lstm-optax prepare`; by default the help topics of Python."""

    encoding: Annotated[str, tyro.conf.arg(metavar="NAME")] = "utf-8"
    """Encoding of the text file, as Python names it."""

    keep_line_ends: bool = False
    """Keep the line ends of the text file; by default each becomes a newline character."""

    validation: Annotated[int | None, tyro.conf.arg(metavar="INT"), whole_numbers(2)] = None
    """Characters at the end of the text for validation, by default a tenth; of a prepared text,
    tokens at the start of its validation part, by default all. The default is at most 100,000."""

    baselines: bool = True
    """Count n-gram models of the text, and show their losses next to that of the model."""

    optimizer: OptimizerName = "nadam"
    """Name of an optimizer."""

    learning_rate: Positive = 1.6e-2
    """Peak learning rate, above 0."""

    schedule: Schedule = "cosine"
    """Learning-rate schedule after the warmup; cosine and linear end at 0."""

    warmup: CountOrZero = 0
    """Steps of linear warmup of the learning rate from 0; fewer than the steps of the run."""

    clip: NormBound = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down; 0 for no clipping."""

    clip_gates: NormBound = 0.0
    """Bound on the gradient of the gates at every time step, such as 10; 0 for no bound."""

    guard: CountOrZero = 0
    """Skip non-finite steps, and stop after this many in a row; 0 stops at the first."""

    rewind: CountOrZero = 0
    """Instead of stopping, return to the last checkpoint at most this many times, with other
    batches and half the learning rate; 0 stops."""

    weight_decay: Annotated[float | None, tyro.conf.arg(metavar="FLOAT"), OptionRange()] = None
    """Weight decay as the optimizer defines it, 0 or more; by default the optimizer's own."""

    set: Settings = ()
    """A hyper-parameter of the optimizer, such as b2=0.99; an error lists the known names."""

    embedding: Units = 64
    """Size of the embedding of a character or word, from 1 to 1,048,576."""

    hidden: Units = 256
    """Hidden units of each LSTM layer, from 1 to 1,048,576."""

    layers: Annotated[int, whole_numbers(1, 100)] = 1
    """LSTM layers, from 1 to 100."""

    dropout: Probability = 0.0
    """Dropout probability of the non-recurrent connections, from 0 to below 1."""

    locked_dropout: bool = False
    """Use the same dropout mask at all steps of a window."""

    embedding_dropout: Probability = 0.0
    """Probability that a character's embedding is zero for a window, from 0 to below 1."""

    weight_dropout: Probability = 0.0
    """Probability that a recurrent weight is zero for a window, from 0 to below 1."""

    ar: NonNegative = 0.0
    """Weight of the loss term AR, the mean square of the last layer's outputs, 0 or more."""

    tar: NonNegative = 0.0
    """Weight of the loss term TAR, the mean square of their change per time step, 0 or more."""

    tied: bool = False
    """Use the embedding as output layer; needs --embedding equal to --hidden."""

    softmax: Softmax = "full"
    """Output layer; adaptive is faster for more than 2,000 words of a prepared text."""

    batch: Count = 32
    """Rows of text in a batch, at least 1."""

    window: Count = 64
    """Characters, or other tokens, of each row in a step, through which gradients flow."""

    vary_window: bool = False
    """Vary the length of windows randomly around --window; the learning rate scales with it."""

    steps: Annotated[Count, RunLength] = 400
    """Training steps, at least 1."""

    epochs: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT"),
        RunLength,
        OptionRange(above=True),
    ] = None
    """Passes over the text in place of --steps, above 0."""

    eval_every: Count = 50
    """Steps from one evaluation, record and checkpoint to the next, at least 1."""

    checkpoint_every: CountOrZero = 0
    """Save a checkpoint at every multiple of this as well, between evaluations; 0 for none."""

    keep: Count = 2
    """Newest checkpoints to keep, at least 1; the best is kept as well."""

    keep_every: CountOrZero = 0
    """Keep every checkpoint whose step is a multiple of this as well; 0 for none."""

    patience: Count = 10
    """Stop early after this many evaluations without improvement, at least 1."""

    seed: Seed = 0
    """Seed of the parameters, the dropout and the lengths of --vary-window, 0 or more."""

    diagnose: bool = False
    """Measure the gradient inside the LSTM at each evaluation, per gate and per time step."""

    tensorboard: bool = False
    """Write the records to event files for TensorBoard, in the run folder."""

    wandb: bool = False
    """Send the records to Weights & Biases; its settings are read from WANDB_PROJECT and so on."""

    mlflow: bool = False
    """Send the records to MLflow; its server is read from MLFLOW_TRACKING_URI."""

    dtype: Dtype = "float32"
    """Dtype of the matrix products; parameters and state are float32. float16 scales the loss."""

    devices: CountOrZero = 0
    """Devices that share a batch, a divisor of --batch. 0 uses all with at least 8 rows each, or
    one CPU where the native backend uses all its cores."""

    shard_state: bool = False
    """Split parameters and optimizer state over the devices, too, to save memory (ZeRO)."""

    def check(self) -> None:
        """Raise OptionError for the first invalid option."""
        try:
            check_optimizer(self.optimizer)
        except ValueError as error:
            raise OptionError(f"--optimizer: {error}") from None
        check_fields(self)
        self._check_run_length()
        self._check_model()
        if self.text is None and self.encoding != TrainConfig.encoding:
            raise OptionError(
                f"--encoding {self.encoding} needs --text FILE: the default text is not decoded"
            )
        self._check_settings()
        self._check_loggers()
        undecayed = set(OPTIMIZER_NAMES) - set(DECAYING_OPTIMIZERS)
        if self.weight_decay is not None and self.optimizer in undecayed:
            raise OptionError(
                f"--weight-decay: {self.optimizer} has no weight decay; these optimizers have one: "
                f"{', '.join(DECAYING_OPTIMIZERS)}"
            )
        if self.devices and self.batch % self.devices:
            divisors = [n for n in range(1, min(self.batch, 1000) + 1) if self.batch % n == 0]
            raise OptionError(
                f"--devices {self.devices} does not divide --batch {self.batch}; these do: "
                f"{', '.join(map(str, divisors))}"
            )

    def _check_settings(self) -> None:
        """Check the texts of --set; the optimizer's own arguments are checked when it is built."""
        given = split_settings(self.set)
        if self.weight_decay is not None and "weight_decay" in given:
            raise OptionError(
                f"--weight-decay {self.weight_decay} and --set weight_decay={given['weight_decay']}"
                ": pass only one"
            )

    def _check_loggers(self) -> None:
        """Check that the packages of the loggers are installed, without importing them."""
        for name, package in LOGGERS.items():
            if getattr(self, name) and find_spec(package) is None:
                raise OptionError(
                    f"--{name}: {package} is not installed: pip install 'lstm_optax[{name}]'"
                )

    def _check_run_length(self) -> None:
        if self.epochs is None:
            if self.warmup >= self.steps:
                raise OptionError(
                    f"--warmup is {self.warmup}, but must be less than --steps, which is "
                    f"{self.steps}"
                )
        elif self.steps != TrainConfig.steps:
            raise OptionError(
                f"--steps is {self.steps} and --epochs is {self.epochs}: pass only one"
            )

    def _check_model(self) -> None:
        if self.locked_dropout and not self.dropout:
            raise OptionError("--locked-dropout needs --dropout above 0, which it modifies")
        if self.tied and self.softmax == "adaptive":
            raise OptionError("--tied and --softmax adaptive are two output layers: pass only one")
        if self.tied and self.embedding != self.hidden:
            raise OptionError(
                f"--tied needs --embedding equal to --hidden, but they are {self.embedding} "
                f"and {self.hidden}"
            )


@dataclass(frozen=True)
class SampleConfig:
    """Options of sampling from a trained model."""

    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Beginning of the text; by default "The ", or a character or line end of the run's text."""

    length: Annotated[int, whole_numbers(1, 10_000_000)] = 300
    """Characters, bytes or words to write, from 1 to 10,000,000."""

    temperature: NonNegative = 0.7
    """0 takes the most likely character each time, 1 samples as the model predicts; 0 or more."""

    seed: Seed = 0
    """Seed of the sampling, 0 or more."""

    def check(self, vocabulary: str | None = None) -> None:
        """Raise OptionError for the first invalid option.

        Args:
          vocabulary: the characters of the run's text, which the prompt may contain; None to leave
            the prompt's characters unchecked.
        """
        if self.prompt == "":
            raise OptionError("--prompt is empty: pass at least one character")
        check_fields(self)
        unknown = sorted(set(self.prompt or "") - set(vocabulary)) if vocabulary else []
        if unknown:
            some = ", ".join(map(repr, unknown[:5])) + (", …" if unknown[5:] else "")
            raise OptionError(
                f"--prompt: the run's text does not contain {some}; leave such characters out, or "
                "train on a text that contains them"
            )
