"""The space of hyper-parameters that Optuna samples: ranges and choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import check_grid

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = dict[str, "BaseDistribution"]

LOG_RATIO = 100.0
"""Ratio of the ends of a range from which on its scale is logarithmic."""

EDGE = 0.01
"""Share of a range's width at each end in which a best value is at the edge."""


def check_space(space: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]) -> Space:
    """Return Optuna's distribution of each hyper-parameter.

    Args:
      space: by name a range, the tuple (low, high) of numbers, or a list of choices.
      settings: hyper-parameters that all trials share.

    Raises:
      StudyError: no learning rate, a name that is in settings too, a range that does not rise or
        that must be above 0, or choices that `check_grid` refuses.
    """
    if "learning_rate" not in space:
        raise StudyError("the space has no learning_rate: add its range, such as (1e-4, 1e-1)")
    if both := [name for name in space if name in settings]:
        raise StudyError(f"{both[0]} is in the space and in settings: leave one of them out")
    return {name: _distribution(name, values) for name, values in space.items()}


def _distribution(name: str, values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, tuple):
        low, high = _ends(name, values)
        log = name == "learning_rate" or (low > 0 and high >= LOG_RATIO * low)
        if log and low <= 0:
            raise StudyError(f"the range of {name} is {values}, but must be above 0")
        return FloatDistribution(low, high, log=log)
    choices = check_grid({"learning_rate": (1.0,), **{name: values}}, {})[name]
    return CategoricalDistribution(choices)


def _ends(name: str, values: tuple[Any, ...]) -> tuple[float, float]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) != 2 or len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        raise StudyError(
            f"the space of {name} is {values!r}, but must be a range, a tuple of two numbers, or a "
            "list of choices"
        )
    low, high = map(float, numbers)
    if low >= high:
        raise StudyError(f"the range of {name} is {values}, but must rise")
    return low, high


def space_facts(space: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a space as JSON: low and high of a range, or the list of choices."""
    return {
        name: dict(zip(("low", "high"), values, strict=True))
        if isinstance(values, tuple)
        else list(values)
        for name, values in space.items()
    }


def hyper_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters of Optuna with six digits, as in the name of a trial."""
    return {n: float(f"{v:.6g}") if isinstance(v, float) else v for n, v in params.items()}


def edge_of(space: Space, hyper: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the first hyper-parameter at an end of its range, and "low" or "high"; or None twice.

    Ranges on a linear scale do not count: many end at a natural limit, such as 0. The learning rate
    is looked at first.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    for name in sorted(space, key=lambda name: name != "learning_rate"):
        found = space[name]
        if name == "learning_rate" and isinstance(found, CategoricalDistribution):
            rates: Any = found.choices
            edges = {min(rates): "low", max(rates): "high"}
            if hyper[name] in edges:
                return name, edges[hyper[name]]
        if isinstance(found, FloatDistribution) and found.log:
            low, high, value = map(math.log, (found.low, found.high, hyper[name]))
            if value - low <= EDGE * (high - low):
                return name, "low"
            if high - value <= EDGE * (high - low):
                return name, "high"
    return None, None
