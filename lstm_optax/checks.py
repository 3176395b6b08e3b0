"""The one check of every argument: what is concrete is looked at, what is traced has no value yet.

An error names the argument as the caller typed it, says what came, and what is expected.
"""

import math
import operator
import reprlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TRACED = object()
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may be.

    A number is an int or a float of Python or NumPy, or an array of shape [] of NumPy or JAX; a
    bool is none. Of a traced array only the shape and the dtype are looked at.

    Attributes:
      low: the least number.
      high: the end of the range, not in it.
      closed: `high` is in it.
      above: `low` is not in it.
      whole: the number is an integer, by its type.
      static: shapes depend on the number, so it is of Python or NumPy.
      schedule: a function of the count may come in place of a number.
    """

    low: float = 0.0
    high: float = math.inf
    closed: bool = False
    above: bool = False
    whole: bool = False
    static: bool = False
    schedule: bool = False

    def or_schedule(self) -> "Range":
        """Return the same range, or a schedule."""
        return replace(self, schedule=True)

    def check(self, **arguments: Any) -> None:
        """Raise ValueError for the first argument that is not such a number."""
        for name, value in arguments.items():
            if self.static and _is_of_jax(value):
                raise ValueError(
                    f"{name} is an array of JAX, but must be a Python integer, since shapes depend "
                    f"on it: with optax.inject_hyperparams, add static_args=({name!r},)"
                )
            if not self._holds(value):
                raise ValueError(f"{name} is {shown(value)}, but must be {self}")
            if not self.whole and (remedy := _too_large(value)):
                raise ValueError(f"{name} is {shown(value)}, {remedy}")

    def _holds(self, value: Any) -> bool:
        if callable(value) and not _has_dtype(value):  # a Flax variable is callable
            return self.schedule
        number = concrete(value)
        if number is None or number is TRACED:
            return number is TRACED
        try:
            finite = math.isfinite(number)
        except OverflowError:  # an int beyond float64
            return False
        inside = self.low <= number < self.high or (self.closed and number == self.high)
        return (
            inside
            and (finite or self.closed)
            and not (self.above and number == self.low)
            and not (self.whole and not isinstance(number, int))
        )

    def __str__(self) -> str:
        text = "a whole number" if self.whole else "a number"
        if self.high < math.inf:
            text += f" in [{self.low:g}, {self.high:g}{']' if self.closed else ')'}"
        elif self.low == -math.inf:
            text += "" if self.closed else " that is finite"
        else:
            text += f" {'above' if self.above else 'of at least'} {self.low:g}"
            text += ", or inf" if self.closed else ""
        return text + (", or a schedule" if self.schedule else "")


ANY = Range(-math.inf)
SIZE = Range()
FACTOR = Range(above=True)
BOUND = Range(closed=True)
DECAY = Range(high=1)
SHARE = Range(high=1, closed=True)
COUNT = Range(1, whole=True)
LENGTH = Range(1, whole=True, static=True)
RATE = SIZE.or_schedule()


def concrete(value: Any) -> Any:
    """Return the Python number that `value` is, TRACED for a tracer, None for anything else."""
    if isinstance(value, bool | np.ma.MaskedArray):
        return None
    if isinstance(value, int | float):
        return value
    if not _is_scalar(value):
        return None
    if _is_of_jax(value):
        from jax import Array  # here, so that NumPy alone does not ask for JAX
        from jax.core import Tracer

        if not isinstance(value, Array):
            return None
        if isinstance(value, Tracer):
            return TRACED
    return value.item()


def whole(name: str, value: Any, low: int = 1) -> int:
    """Return a whole number as an int; ValueError if it is below `low` or anything else."""
    Range(low, whole=True).check(**{name: value})
    return operator.index(value)


def check_flags(**arguments: Any) -> None:
    """Raise ValueError for the first argument that is neither True nor False."""
    for name, value in arguments.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {shown(value)}, but must be True or False")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the argument is one of the words."""
    if not isinstance(value, str) or value not in choices:
        words = " or ".join(map(repr, choices))
        raise ValueError(f"{name} is {shown(value)}, but must be {words}")


def check_transformations(**arguments: Any) -> None:
    """Raise ValueError for the first argument without the `init` and `update` of Optax."""
    for name, value in arguments.items():
        both = callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
        if isinstance(value, type) or not both:
            raise ValueError(
                f"{name} is {shown(value)}, but must be an optax.GradientTransformation"
            )


def shown(value: Any) -> str:
    """Return a short text for a value in an error."""
    if _is_scalar(value) and concrete(value) is not TRACED:
        return str(value)
    if _has_dtype(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, int) and value.bit_length() > 256:  # Python does not print the longest
        return f"an integer of {value.bit_length()} bits"
    return reprlib.repr(value)


def _too_large(value: Any) -> str:
    """Return what is wrong with a finite number that JAX cannot compute with, else ""."""
    number = concrete(value)
    if isinstance(number, int) and abs(number) >= 2**31:
        return "which int32 does not hold: give it as a float"
    if isinstance(number, float) and _MOST < abs(number) < math.inf:
        return "which float32 does not hold"
    return ""


def _has_dtype(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_of_jax(value: Any) -> bool:
    return _has_dtype(value) and not isinstance(value, np.generic | np.ndarray)


def _is_scalar(value: Any) -> bool:
    kinds = ("float", "bfloat", "int", "uint")
    return getattr(value, "shape", None) == () and str(getattr(value, "dtype", "")).startswith(
        kinds
    )
