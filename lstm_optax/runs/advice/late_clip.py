"""Measure from outside whether an optimizer clips too late, behind its preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import optax

    Optimizer: TypeAlias = (
        optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]
    )

BIG = 2**22  # entries; a bound on the norm of the steps shows from about 2,000 usual steps on


@dataclass(frozen=True)
class LateClip:
    """How an optimizer responds to one large gradient among gradients of 1."""

    spike: str
    """The gradient that disturbs the most later steps: 1,000 or −1,000; "" if none does."""

    disturbed: int = 0
    """The number of later steps that are off by more than a factor of 2."""

    measured: int = 0
    """The number of later steps."""

    bounded: bool = False
    """Whether the norm of the steps has a bound that does not grow with the parameters."""


def measure_late_clip(optimizer: Optimizer, learning_rate: float) -> LateClip:
    """Measure an optimizer with `explain`, and with a vector of many parameters.

    The vector shows a clip of the norm: without one, equal entries make equal steps, whatever
    their number; with one, the step of an entry shrinks as their number grows.

    Args:
      optimizer: a transformation, or a function that makes one from a learning rate.
      learning_rate: the argument of the function.

    Raises:
      ValueError: `explain` cannot measure the optimizer.
    """
    from lstm_optax.response import explain
    from lstm_optax.response.notes import absorbed_spike

    tx: Any = optimizer
    rate = None if hasattr(tx, "update") else learning_rate
    size, spike = absorbed_spike(explain(tx, learning_rate=rate, name="optimizer"))
    if spike is None:
        return LateClip("")
    tx = tx if rate is None else tx(rate)
    return LateClip(size, spike.disturbed, len(spike.relative) - 1, _has_bounded_norm(tx))


def _has_bounded_norm(tx: Any) -> bool:
    try:
        one, each = (_first_step(tx, entries) for entries in (1, BIG))
    except Exception:  # a rule that needs an LSTM or a matrix may raise anything
        return False
    return 0 < abs(each) < 0.9 * abs(one)


def _first_step(tx: Any, entries: int) -> float:
    """Return the first update of each entry of a vector at 0 under a gradient of ones."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def first() -> jax.Array:
        params = jnp.zeros(entries)
        return tx.update(jnp.ones(entries), tx.init(params), params)[0][0]

    return float(first())
