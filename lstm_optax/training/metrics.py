"""The metrics of a step, and their running sums, kept on the device until the host asks."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_optax.transforms import ClipByGlobalNormState, GuardState, find_states


class StepMetrics(NamedTuple):
    """The metrics of one step."""

    loss: jax.Array  # float []
    grad_norm: jax.Array  # float [], global norm of the gradients, before the optimizer
    largest: Any  # params' tree: max |g| of each leaf if the step is skipped or not finite, else 0
    clipped: jax.Array  # bool [], whether a clip of the optimizer scaled the gradient
    skipped: jax.Array  # bool [], whether a guard of the optimizer skipped the step
    gave_up: jax.Array  # bool [], whether a guard has skipped too many steps in a row
    update_ratio: Any = ()  # float [matrices], size of the update against that of the weights


class CompensatedSum(NamedTuple):
    """A running sum in two parts, value + rest.

    A sum in one float32 is 1 % off after 10⁶ equal terms, and 12 % after 10⁷: each addition rounds
    the term to the precision of the sum. The second part keeps what the rounding lost.
    """

    value: jax.Array  # float []
    rest: jax.Array  # float [], the rounding error of the value

    def plus(self, term: jax.Array) -> "CompensatedSum":
        """Return the sum with one more term, by Knuth's TwoSum, which keeps the rounding error."""
        term = term.astype(self.value.dtype)
        value = self.value + term
        added = value - self.value  # the part of the term that reached the rounded sum
        lost = (self.value - (value - added)) + (term - added) + self.rest
        return _renormalise(value, lost)

    def mean(self, count: float) -> float:
        """Return the sum divided by a count, as a Python float."""
        return (float(self.value) + float(self.rest)) / count


def _renormalise(value: jax.Array, rest: jax.Array) -> CompensatedSum:
    """Return value + rest with a rest of at most half a unit in the last place of the value."""
    total = value + rest
    new_rest = rest - (total - value)
    finite = jnp.isfinite(total)  # infinity − infinity would turn an overflow into NaN
    return CompensatedSum(jnp.where(finite, total, value), jnp.where(finite, new_rest, 0.0))


class Sums(NamedTuple):
    """Sums of the metrics over the steps since the last record.

    They are part of the training state, so a run that is interrupted inside an interval continues
    its means.
    """

    steps: jax.Array  # int32 [], skipped steps excluded
    loss: CompensatedSum
    grad_norm: CompensatedSum
    clipped: jax.Array  # int32 []
    skipped: jax.Array  # int32 []


def zero_sums() -> Sums:
    """Return the sums over no steps."""
    steps, clipped, skipped = (jnp.zeros([], jnp.int32) for _ in range(3))
    loss, grad_norm = (CompensatedSum(jnp.zeros([]), jnp.zeros([])) for _ in range(2))
    return Sums(steps, loss, grad_norm, clipped, skipped)


def add_step(sums: Sums, metrics: StepMetrics) -> Sums:
    """Return the sums with one more step; a skipped step only raises the count `skipped`."""
    taken = Sums(
        steps=sums.steps + 1,
        loss=sums.loss.plus(metrics.loss),
        grad_norm=sums.grad_norm.plus(metrics.grad_norm),
        clipped=sums.clipped + metrics.clipped,
        skipped=sums.skipped,
    )
    skipped = sums._replace(skipped=sums.skipped + 1)
    return jax.tree.map(lambda a, b: jnp.where(metrics.skipped, a, b), skipped, taken)


def interval_means(sums: Sums) -> dict[str, float]:
    """Return the metrics of an interval as Python numbers.

    These are the mean loss and gradient norm, and the share of clipped steps, of the steps that
    were not skipped, and the number of skipped steps. A mean over no steps is NaN.
    """
    steps = int(sums.steps) or math.nan
    return {
        "train_loss": sums.loss.mean(steps),
        "grad_norm": sums.grad_norm.mean(steps),
        "clipped": int(sums.clipped) / steps,
        "skipped": int(sums.skipped),
    }


class OptimizerEvents(NamedTuple):
    """The events of one step in the clips and guards of an optimizer."""

    clipped: jax.Array  # bool []
    skipped: jax.Array  # bool []
    gave_up: jax.Array  # bool []


def optimizer_events(before: Any, after: Any) -> OptimizerEvents:
    """Return the events of a step from the optimizer's states before and after it.

    Clips and guards count their events in their state, so a count that has grown is an event.
    """
    old_clips, clips = (find_states(s, ClipByGlobalNormState) for s in (before, after))
    old_guards, guards = (find_states(s, GuardState) for s in (before, after))
    return OptimizerEvents(
        clipped=_any_true(a.clipped > b.clipped for a, b in zip(clips, old_clips, strict=True)),
        skipped=_any_true(a.skipped > b.skipped for a, b in zip(guards, old_guards, strict=True)),
        gave_up=_any_true(guard.gave_up for guard in guards),
    )


def _any_true(flags: Iterable[jax.Array]) -> jax.Array:
    # inside by_gate a flag is an array with an entry for each gate
    return reduce(jnp.logical_or, map(jnp.any, flags), jnp.bool_(False))
