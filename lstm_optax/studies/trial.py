"""A trial: one training with one setting of the hyper-parameters and one seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lstm_optax.studies.study_records import StudyError

TUNING, REPORT = "tuning", "report"

TUNING_SEED = 1000
"""First seed of the trials that select hyper-parameters; reported seeds count from 0."""


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
      optimizer: name of the optimizer.
      hyper: its hyper-parameters by name, with the learning rate.
      seed: of the initial parameters, the batches and the dropout.
      part: TUNING or REPORT.
    """

    optimizer: str
    hyper: Mapping[str, Any]
    seed: int
    part: str = TUNING

    @property
    def name(self) -> str:
        """The unique name in the records."""
        settings = " ".join(f"{name}={_format(value)}" for name, value in self.hyper.items())
        return f"{self.optimizer} {settings} seed={self.seed}"


def make_trials(
    optimizer: str, grid: Mapping[str, Sequence[Any]], seeds: Sequence[int], part: str = TUNING
) -> list[Trial]:
    """Return a trial for each combination of the grid's values and each seed."""
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [Trial(optimizer, setting, seed, part) for setting in settings for seed in seeds]


def check_grid(grid: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Return a grid with tuples of values.

    Raises:
      StudyError: no learning rate, a name without values, a value given twice, or a learning rate
        that is not a positive number.
    """
    if "learning_rate" not in grid:
        raise StudyError("the grid has no learning_rate: add its values, such as (1e-3, 1e-2)")
    checked = {}
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise StudyError(f"the grid of {name} is {values!r}, but must be a list of values")
        if len({_format(value) for value in values}) < len(values):
            raise StudyError(f"the grid of {name} has a value twice: {', '.join(map(str, values))}")
        checked[name] = tuple(values)
    for rate in checked["learning_rate"]:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e30:
            raise StudyError(f"a learning rate of the grid is {rate!r}, but must be above 0")
    checked["learning_rate"] = tuple(map(float, checked["learning_rate"]))
    return checked


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
