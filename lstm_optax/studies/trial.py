"""A trial: one training with one setting of the hyper-parameters and one seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from lstm_optax.checks import format_value
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
        return f"{self.optimizer} {format_setting(self.hyper)} seed={self.seed}"


def format_setting(hyper: Mapping[str, Any]) -> str:
    """Return hyper-parameters as text, such as "learning_rate=0.001 b2=0.99"."""
    return " ".join(f"{name}={_format(value)}" for name, value in hyper.items())


def make_trials(
    optimizer: str, grid: Mapping[str, Sequence[Any]], seeds: Sequence[int], part: str = TUNING
) -> list[Trial]:
    """Return a trial for each combination of the grid's values and each seed."""
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [Trial(optimizer, setting, seed, part) for setting in settings for seed in seeds]


def check_grid(
    grid: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Return a grid with tuples of values; integers among floats become floats.

    Args:
      grid: values by name of the hyper-parameter.
      settings: hyper-parameters that all trials share.

    Raises:
      StudyError: no learning rate, a name without values, a value that JSON does not store as it
        is, a value given twice, a learning rate or clip that is not a positive number, or a name
        that is in the settings too.
    """
    if "learning_rate" not in grid:
        raise StudyError("the grid has no learning_rate: add its values, such as (1e-3, 1e-2)")
    if both := [name for name in grid if name in settings]:
        raise StudyError(f"{both[0]} has a grid and is in settings: leave one of them out")
    checked = {}
    for name, values in grid.items():
        checked[name] = _check_values(name, values)
    for name in {"learning_rate", "clip"} & checked.keys():
        for value in checked[name]:
            if not _is_number(value) or not 0 < value < 1e30:
                raise StudyError(f"a {name} of the grid is {value!r}, but must be above 0")
        checked[name] = tuple(map(float, checked[name]))
    return checked


def _check_values(name: str, values: Any) -> tuple[Any, ...]:
    """Return the values of one hyper-parameter as Python values."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple) or not values:
        raise StudyError(f"the grid of {name} is {values!r}, but must be a list of values")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in values:
        if not (value is None or isinstance(value, bool | int | float | str)):
            shown = format_value(value)
            raise StudyError(f"a {name} of the grid is {shown}, but must be a number or text")
        if isinstance(value, float) and not math.isfinite(value):
            raise StudyError(f"a {name} of the grid is {value}, but must be finite")
    if any(isinstance(value, float) for value in values):  # floats share one program
        values = [float(value) if _is_number(value) else value for value in values]
    if len({_format(value) for value in values}) < len(values):
        raise StudyError(f"the grid of {name} has a value twice: {', '.join(map(str, values))}")
    return tuple(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
