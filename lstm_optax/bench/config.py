"""The options of a benchmark: rows, contenders, rounds. Imports no JAX: `--help` stays fast."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Annotated

import tyro

from lstm_optax.bench.workloads import QUICK_ROWS, WORKLOADS, Row
from lstm_optax.runs.constraints import Count, OptionError, Seed, check_fields

__all__ = ["BenchConfig"]

OURS, LOWER_BOUND, BACKEND = "lstm_optax", "lower_bound", "backend."
STEPS = 8  # per dispatch, in the measures of several steps
MEASURES_BY_KIND = MappingProxyType(
    {
        "layer": ("step", "steps", "double", "forward"),
        "train": ("step", "steps", "used"),
        "optimizer": ("step",),
    }
)
"""The measures of each kind of row.

- `step`: one step per dispatch, forward and backward.
- `steps`: several steps in one dispatch.
- `double`: one step with sequences of double length.
- `forward`: the forward pass alone.
- `used`: several steps as each library is used, ours in one dispatch, others one step per call.
"""

QUICK_MEASURES = ("step", "steps", "used")
UNROLLS = (1, 4)  # tried for every contender with a scan
SECONDS = {True: 4.0, False: 60.0}  # by `quick`: a measure ends then, after MIN_ROUNDS or more
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Contender:
    """A library to compare with: its layer, its module, its package, the rows that it runs."""

    title: str
    module: str
    package: str
    kinds: tuple[str, ...] = ("layer",)

    def installed(self) -> bool:
        """Return whether the module can be imported."""
        return importlib.util.find_spec(self.module) is not None

    def version(self) -> str | None:
        """Return the version of the package, None if it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


CONTENDERS: Mapping[str, Contender] = MappingProxyType(
    {
        "flax-nnx": Contender("nnx.RNN(OptimizedLSTMCell)", "flax", "flax", ("layer", "train")),
        "flax-linen": Contender("linen.RNN(OptimizedLSTMCell)", "flax", "flax"),
        "equinox": Contender("lax.scan of nn.LSTMCell", "equinox", "equinox"),
        "haiku": Contender("dynamic_unroll of LSTM", "haiku", "dm-haiku"),
        "keras": Contender("layers.LSTM on JAX", "keras", "keras"),
        "torch": Contender("nn.LSTM", "torch", "torch", ("layer", "train", "optimizer")),
        "optax": Contender("chain", "optax", "optax", ("optimizer",)),
    }
)


@dataclass(frozen=True)
class BenchConfig:
    """The rows and contenders to measure, and the number of rounds."""

    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME …]")] = ()
    """Names of the rows to measure; all by default, two with --quick."""

    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME …]")] = ()
    """Libraries to compare with, or backend.NAME; all installed libraries by default."""

    rounds: Count = 20
    """Rounds in which each contender runs once, at least 1; a slow row takes fewer."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run two rows with fewer measures and rounds, in under two minutes."""

    seed: Seed = 0
    """Seed of the data and of the order within each round, 0 or more."""

    def chosen_rows(self, workloads: Mapping[str, Row] = WORKLOADS) -> tuple[str, ...]:
        """Return the names of the rows to measure, in the order of the table."""
        default = QUICK_ROWS if self.quick else tuple(workloads)
        chosen = self.rows or default
        return tuple(name for name in workloads if name in chosen)

    def chosen_contenders(
        self, row: Row, contenders: Mapping[str, Contender] = CONTENDERS
    ) -> tuple[str, ...]:
        """Return the names of the contenders of a row, in the order of the table."""
        names = self.against or tuple(contenders)
        backends = [n for n in names if n.startswith(BACKEND) and row.kind == "layer"]
        serving = [n for n, contender in contenders.items() if row.kind in contender.kinds]
        return (*(n for n in serving if n in names), *backends)

    def check(
        self,
        workloads: Mapping[str, Row] = WORKLOADS,
        contenders: Mapping[str, Contender] = CONTENDERS,
    ) -> None:
        """Raise OptionError for the first invalid value."""
        _check_names("--rows", self.rows, tuple(workloads))
        named = tuple(name for name in self.against if not name.startswith(BACKEND))
        _check_names("--against", named, tuple(contenders), f", and {BACKEND}NAME")
        check_fields(self)


def _check_names(flag: str, names: Sequence[str], known: Sequence[str], more: str = "") -> None:
    for name in names:
        if name not in known:
            raise OptionError(f"{flag}: unknown name {name!r}; there are {', '.join(known)}{more}")
