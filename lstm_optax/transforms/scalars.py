"""Hyper-parameters: numbers that may be traced, or schedules of a link's own count."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.checks import Range
from lstm_optax.transforms.derivatives import one_minus_power

Scalar = float | jax.Array
_NUMBERS = (int, float, np.number)


def scalar(value: Scalar) -> jax.Array:
    """Return `value` in the dtype of a rule's scalars: float32, float64 under x64."""
    return jnp.asarray(value, dtype=float)


def complement(decay: Scalar) -> Scalar:
    """Return 1 − decay: in Python's double precision for a Python number, else as a scalar."""
    return 1 - (decay if isinstance(decay, _NUMBERS) else scalar(decay))


def debias_factor(decay: Scalar, count: jax.Array) -> jax.Array:
    """Return 1 − decayᵗ, computed as −expm1(t · log1p(−(1 − decay))).

    The naive form loses 1.3e-5 of its value to rounding at decay = .999 in float32.
    """
    return one_minus_power(scalar(complement(decay)), count)


def increment(count: jax.Array) -> jax.Array:
    """Return count + 1, staying at the largest int32 once it is there."""
    return jnp.asarray(optax.safe_increment(count))


def as_schedule(value: optax.ScalarOrSchedule, numbers: Range) -> Callable[[Any], Any]:
    """Return `value` as a function of the count, whether it is a number or a schedule.

    Raises:
      ValueError: at a count, a schedule returns something else than one of `numbers`.
    """
    if not callable(value):
        return lambda count: value

    def checked(count: Any) -> Any:
        result = value(count)
        name = getattr(value, "__name__", type(value).__name__)
        numbers.check(**{f"the result of the schedule {name}": result})
        return result

    return checked
