"""Argument checks shared by all rooms.

The value of a concrete number is checked; of a traced one only the shape and the dtype, since it
has no value yet. An error names the argument as the caller typed it, the value that came and the
values that are expected.
"""

import math
import operator
import reprlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TRACED = object()
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Range:
    """The numbers that an argument accepts.

    A number is a Python or NumPy int or float, or a NumPy or JAX array of shape []; a bool is not a
    number. For a traced array only the shape and the dtype are checked.

    Attributes:
      low: the lower end, included unless `above`.
      high: the upper end, excluded unless `closed`.
      closed: include `high`.
      above: exclude `low`.
      whole: the number must have an integer type.
      static: shapes depend on the number, so it must be a Python or NumPy number.
      schedule: a function of the step count is accepted as well.
    """

    low: float = 0.0
    high: float = math.inf
    closed: bool = False
    above: bool = False
    whole: bool = False
    static: bool = False
    schedule: bool = False

    def or_schedule(self) -> "Range":
        """Return this range with schedules accepted as well."""
        return replace(self, schedule=True)

    def check(self, **arguments: Any) -> None:
        """Raise ValueError for the first argument that is outside the range."""
        for name, value in arguments.items():
            if self.static and _is_jax_value(value):
                raise ValueError(
                    f"{name} is a JAX array, but must be a Python integer, since shapes depend "
                    f"on it: with optax.inject_hyperparams, add static_args=({name!r},)"
                )
            if not self._contains(value):
                raise ValueError(f"{name} is {format_value(value)}, but must be {self}")
            if not self.whole and (overflow := _overflow_error(value)):
                raise ValueError(f"{name} is {format_value(value)}, {overflow}")

    def _contains(self, value: Any) -> bool:
        # a Flax variable is callable too, but it has a dtype
        if callable(value) and not _has_dtype(value):
            return self.schedule
        number = concrete(value)
        if number is None or number is TRACED:
            return number is TRACED
        try:
            finite = math.isfinite(number)
        except OverflowError:  # an int too large for float64
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
    """Return a number as a Python number, a tracer as TRACED, and anything else as None."""
    if isinstance(value, bool | np.ma.MaskedArray):
        return None
    if isinstance(value, int | float):
        return value
    if not _is_scalar(value):
        return None
    if _is_jax_value(value):
        from jax import Array  # imported here, so that NumPy users do not load JAX
        from jax.core import Tracer

        if not isinstance(value, Array):
            return None
        if isinstance(value, Tracer):
            return TRACED
    return value.item()


def check_integer(name: str, value: Any, low: int = 1) -> int:
    """Return a Python int; raise ValueError for a value that is no integer or is below `low`."""
    Range(low, whole=True).check(**{name: value})
    return operator.index(value)


def check_flags(**arguments: Any) -> None:
    """Raise ValueError for the first argument that is neither True nor False."""
    for name, value in arguments.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {format_value(value)}, but must be True or False")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the argument is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        words = " or ".join(map(repr, choices))
        raise ValueError(f"{name} is {format_value(value)}, but must be {words}")


def check_transformations(**arguments: Any) -> None:
    """Raise ValueError for the first argument without the functions `init` and `update`."""
    for name, value in arguments.items():
        methods = (getattr(value, "init", None), getattr(value, "update", None))
        if isinstance(value, type) or not all(map(callable, methods)):
            raise ValueError(
                f"{name} is {format_value(value)}, but must be an optax.GradientTransformation"
            )


def check_callable(name: str, value: Any, expected: str) -> None:
    """Raise ValueError unless the argument can be called."""
    if not callable(value):
        raise ValueError(f"{name} is of type {type(value).__name__}; expected {expected}")


def check_instance(name: str, value: Any, kind: type, expected: str) -> None:
    """Raise ValueError unless the argument is an instance of `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is of type {type(value).__name__}; expected {expected}")


def format_value(value: Any) -> str:
    """Return a short description of a value for an error message."""
    if _is_scalar(value) and concrete(value) is not TRACED:
        return str(value)
    if _has_dtype(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, int) and value.bit_length() > 256:  # str() of longer ones can fail
        return f"an integer of {value.bit_length()} bits"
    return reprlib.repr(value)


def _overflow_error(value: Any) -> str:
    """Return the error text for a number that does not fit in int32 or float32; "" if it does."""
    number = concrete(value)
    if isinstance(number, int) and abs(number) >= 2**31:
        return "which does not fit in int32: pass it as a float"
    if isinstance(number, float) and _FLOAT32_MAX < abs(number) < math.inf:
        return "which does not fit in float32"
    return ""


def _has_dtype(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_jax_value(value: Any) -> bool:
    return _has_dtype(value) and not isinstance(value, np.generic | np.ndarray)


def _is_scalar(value: Any) -> bool:
    kinds = ("float", "bfloat", "int", "uint")
    return getattr(value, "shape", None) == () and str(getattr(value, "dtype", "")).startswith(
        kinds
    )
