"""The rows of the benchmark. Imports no JAX."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar


@dataclass(frozen=True)
class LayerRow:
    """A stack of LSTM layers, forward and backward: the gradient is taken of every input."""

    time: int
    batch: int
    features: int
    hidden: tuple[int, ...]  # units of each layer
    about: str
    resets: float = 0.0  # share of the steps with a reset
    kind: ClassVar[str] = "layer"
    comparable: ClassVar[bool] = True  # all contenders compute the same values

    @property
    def widths(self) -> tuple[int, ...]:
        """Input features of each layer."""
        return (self.features, *self.hidden[:-1])

    @property
    def shape(self) -> str:
        """Time, batch, features and hidden units, as shown in the table."""
        sizes = f"{self.time}×{self.batch}, {'-'.join(map(str, (self.features, *self.hidden)))}"
        return sizes + (", resets" if self.resets else "")


@dataclass(frozen=True)
class TrainRow:
    """The train step of a language model: embedding, LSTM, output layer, clip, Adam."""

    time: int
    batch: int
    embedding: int
    hidden: int
    vocabulary: int
    about: str
    kind: ClassVar[str] = "train"
    comparable: ClassVar[bool] = True

    @property
    def shape(self) -> str:
        """Time, batch, and the width of each layer, as shown in the table."""
        sizes = (self.vocabulary, self.embedding, self.hidden, self.vocabulary)
        return f"{self.time}×{self.batch}, {'-'.join(map(str, sizes))}"


@dataclass(frozen=True)
class OptimizerRow:
    """A clip of the gradient's norm, and an update of existing parameters."""

    leaves: tuple[tuple[int, ...], ...]  # their shapes
    rule: str  # "adam", or "nadam", which differs between libraries
    about: str
    kind: ClassVar[str] = "optimizer"

    @property
    def shape(self) -> str:
        """The number of leaves and of parameters, as shown in the table."""
        sizes = sum(math.prod(leaf) for leaf in self.leaves)
        return f"{len(self.leaves)} leaves, {sizes / 1e6:.1f} M"

    @property
    def comparable(self) -> bool:
        """Whether all contenders compute the same values."""
        return self.rule == "adam"


Row = LayerRow | TrainRow | OptimizerRow

LARGE = ((10_000, 650), (1300, 2600), (1300, 2600), (2600,), (2600,), (650, 6800), (10_000, 650))
"""The leaves of a word model of 24 M parameters."""

SMALL = ((64, 64), (64,), (16, 16)) * 100

WORKLOADS: Mapping[str, Row] = MappingProxyType(
    {
        "word-200": LayerRow(35, 20, 200, (200,), "a small word model"),
        "char-128": LayerRow(128, 32, 128, (128,), "a character model's layer"),
        "pixel-128": LayerRow(784, 32, 1, (128,), "images read pixel by pixel"),
        "hydrology-64": LayerRow(365, 256, 32, (64,), "a year of days in many basins"),
        "word-650": LayerRow(35, 20, 650, (650,), "a medium word model"),
        "sequence-256": LayerRow(100, 64, 256, (256,), "a sequence classifier"),
        "rl-256": LayerRow(64, 64, 256, (256,), "a recurrent policy, with resets", resets=0.02),
        "hydrology-256": LayerRow(365, 256, 32, (256,), "a year of days in many basins, wide"),
        "awd": LayerRow(35, 20, 400, (1150, 1150, 400), "the three layers of an AWD-LSTM"),
        "character": TrainRow(64, 32, 64, 256, 102, "the model of `lstm-optax train`"),
        "adam-24m": OptimizerRow(LARGE, "adam", "clip and Adam, large leaves"),
        "nadam-24m": OptimizerRow(LARGE, "nadam", "clip and Nadam, large leaves"),
        "nadam-300": OptimizerRow(SMALL, "nadam", "clip and Nadam, 300 small leaves"),
    }
)

QUICK_ROWS = ("word-200", "character")
"""The rows of --quick."""


def row_facts(row: Row) -> dict[str, Any]:
    """Return the fields of a row for a record; `shape` summarizes the leaves."""
    values = {name: value for name, value in asdict(row).items() if name != "leaves"}
    return {"kind": row.kind, "shape": row.shape, **values}
