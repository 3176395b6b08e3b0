"""What a benchmark is told: rows, contenders, rounds; no JAX here, so that `--help` is quick."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Annotated

import tyro

from lstm_optax.bench.workloads import QUICK, WORKLOADS, Row
from lstm_optax.runs.options import OptionError, check_integer

__all__ = ["BenchConfig"]

OURS, FLOOR, BACKEND = "lstm_optax", "floor", "backend."
STEPS = 8  # per dispatch, where several are
MEASURES = MappingProxyType(
    {
        "layer": ("step", "steps", "double", "forward"),
        "train": ("step", "steps", "used"),
        "optimizer": ("step",),
    }
)
"""What is measured of each kind of row.

One `step` per dispatch, forward and backward; several `steps` in one dispatch; one step of a
sequence of `double` length; `forward` alone; several steps as each is `used`, ours in one dispatch,
the others in the usual loop of one step per call.
"""

QUICK_MEASURES = ("step", "steps", "used")
UNROLLS = (1, 4)  # of the comparators that are a scan
SECONDS = {True: 4.0, False: 60.0}  # by `quick`: a measure ends after these, if MIN_ROUNDS are done
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Contender:
    """A library to compare with: what it runs, and where it comes from."""

    title: str
    module: str
    package: str
    kinds: tuple[str, ...] = ("layer",)

    def installed(self) -> bool:
        """Return whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None

    def version(self) -> str | None:
        """Return its version, None if it is not installed."""
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
    """What to measure, and how often."""

    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME …]")] = ()
    """Rows to measure, by name; all by default, with --quick two."""

    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME …]")] = ()
    """Libraries to compare with, or backend.NAME; by default all that are installed."""

    rounds: int = 20
    """Rounds in which each contender takes its turn, at least 1; a slow row ends after fewer."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Two rows, fewer measures and rounds: within two minutes."""

    seed: int = 0
    """Seed of the data and of the order in each round, 0 or more."""

    def chosen_rows(self, workloads: Mapping[str, Row] = WORKLOADS) -> tuple[str, ...]:
        """Return the names of the rows to measure, in the order of the table."""
        default = QUICK if self.quick else tuple(workloads)
        chosen = self.rows or default
        return tuple(name for name in workloads if name in chosen)

    def chosen_contenders(self, row: Row) -> tuple[str, ...]:
        """Return the names of those to compare with in a row."""
        names = self.against or tuple(CONTENDERS)
        ours = [n for n in names if n.startswith(BACKEND) and row.kind == "layer"]
        return (*(n for n in CONTENDERS if n in names and row.kind in CONTENDERS[n].kinds), *ours)

    def check(self, workloads: Mapping[str, Row] = WORKLOADS) -> None:
        """Raise OptionError for the first value that cannot be."""
        _check_names("--rows", self.rows, tuple(workloads))
        named = tuple(name for name in self.against if not name.startswith(BACKEND))
        _check_names("--against", named, tuple(CONTENDERS), f", and {BACKEND}NAME")
        check_integer("rounds", self.rounds, 1)
        check_integer("seed", self.seed, 0, 2**32 - 1)


def _check_names(flag: str, names: Sequence[str], known: Sequence[str], more: str = "") -> None:
    for name in names:
        if name not in known:
            raise OptionError(f"{flag}: there is no {name!r}; there are {', '.join(known)}{more}")
