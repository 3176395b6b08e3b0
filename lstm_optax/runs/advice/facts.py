"""What the rules of `advise` read: the configuration and the records of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.runs.advice.late_clip import LateClip
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.hyper_parameters import hyper_parameters_of, parse_settings
from lstm_optax.runs.options import TrainConfig
from lstm_optax.runs.run_folder import RunFolder

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; a rule finds nothing where the facts that it needs are missing."""

    config: TrainConfig

    records: Sequence[Row]
    """The rows of metrics.jsonl, at least one."""

    gradients: Sequence[Row] = ()
    """The rows of gradients.jsonl; empty without --diagnose."""

    hyper_parameters: Mapping[str, float] = field(default_factory=dict)
    """The numbers of the optimizer's hyper-parameters, set or by default."""

    late_clip: LateClip | None = None
    """Measurement of the optimizer that `advise` was given."""

    @property
    def steps(self) -> int:
        """The number of steps that the run took."""
        return int(self.records[-1]["step"])

    def series(self, *names: str) -> tuple[NDArray[np.float64], ...]:
        """Return the steps, and each named number, of the records where all of them are finite."""
        rows = [[row["step"], *(row.get(name) for name in names)] for row in self.records]
        table = np.array(rows, np.float64).reshape(-1, 1 + len(names))  # None becomes NaN
        return tuple(table[np.isfinite(table).all(1)].T)

    def late_mean(self, name: str) -> float:
        """Return the mean of a number over the second half of the steps; NaN without records."""
        steps, values = self.series(name)
        late = values[2 * steps > self.steps]
        return float(late.mean()) if late.size else float("nan")

    def layers(self) -> range:
        """Return the numbers of the layers whose gates were measured."""
        names = {name for row in self.records for name in row}
        count = 0
        while f"layer{count}.forget.grad_norm" in names:
            count += 1
        return range(count)

    def late_gradients(self, name: str) -> list[NDArray[np.float64]]:
        """Return a finite array of each gradients row in the second half of the steps."""
        rows = [row[name] for row in self.gradients if name in row and 2 * row["step"] > self.steps]
        arrays = [np.array(row, np.float64) for row in rows]
        return [a for a in arrays if np.isfinite(a).all() and a.shape == arrays[-1].shape]


def read_facts(folder: Path) -> RunFacts:
    """Return the facts of a run.

    Raises:
      OptionError: the folder contains no run, its configuration is damaged, or it has no records.
    """
    run = RunFolder(folder)
    config, _ = run.read_config()
    records = run.records.read()
    if not records:
        raise OptionError(
            f"{run.records.path} has no records: the run ended before its first evaluation; train "
            "for more steps, or evaluate earlier with --eval-every"
        )
    return RunFacts(config, records, run.gradients.read(), optimizer_numbers(config))


def optimizer_numbers(config: TrainConfig) -> dict[str, float]:
    """Return the hyper-parameters that are numbers; {} for an optimizer that Optax now lacks."""
    try:
        known = hyper_parameters_of(config.optimizer)
        given = parse_settings(config.optimizer, config.set)
    except OptionError:
        return {}
    values = {name: parameter.default for name, parameter in known.items()} | given
    numbers = {name: v for name, v in values.items() if isinstance(v, int | float)}
    return {name: value for name, value in numbers.items() if not isinstance(value, bool)}
