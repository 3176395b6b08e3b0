"""The metrics of a step, and their running sums, kept on the device until the host asks."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_optax.transforms import (
    ClipByGlobalNormState,
    GuardState,
    LossScalingState,
    find_states,
)


class StepMetrics(NamedTuple):
    """The metrics of one step."""

    loss: jax.Array  # float []
    # float [], global norm of the gradients, before the optimizer; without the non-finite entries
    # if a clip replaced them by 0
    grad_norm: jax.Array
    largest: Any  # params' tree: max |g| of each leaf if the step is skipped or not finite, else 0
    clipped: jax.Array  # bool [], whether a clip of the optimizer scaled the gradient
    skipped: jax.Array  # bool [], whether a guard or the loss scaling skipped the step
    gave_up: jax.Array  # bool [], whether a guard has skipped too many steps in a row
    overflowed: jax.Array  # bool [], whether it was the loss scaling
    carry_resets: jax.Array  # int32 [], rows of the carry that were set to zero before the step
    update_ratio: Any = ()  # float [matrices], size of the update against that of the weights

    def divided_by(self, scale: jax.Array) -> "StepMetrics":
        """Return the metrics of the loss from the gradients of `scale` times the loss."""
        return self._replace(
            grad_norm=self.grad_norm / scale,
            largest=jax.tree.map(lambda x: x / scale, self.largest),
        )


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
    skipped: jax.Array  # int32 [], by a guard
    overflows: jax.Array  # int32 [], steps that the loss scaling skipped
    carry_resets: jax.Array  # int32 [], rows
    rewinds: jax.Array  # int32 []


def zero_sums() -> Sums:
    """Return the sums over no steps."""
    steps, *counts = (jnp.zeros([], jnp.int32) for _ in range(6))
    loss, grad_norm = (CompensatedSum(jnp.zeros([]), jnp.zeros([])) for _ in range(2))
    return Sums(steps, loss, grad_norm, *counts)


def add_step(sums: Sums, metrics: StepMetrics) -> Sums:
    """Return the sums with one more step; a skipped step only raises counts."""
    sums = sums._replace(carry_resets=sums.carry_resets + metrics.carry_resets)
    taken = sums._replace(
        steps=sums.steps + 1,
        loss=sums.loss.plus(metrics.loss),
        grad_norm=sums.grad_norm.plus(metrics.grad_norm),
        clipped=sums.clipped + metrics.clipped,
    )
    skipped = sums._replace(
        skipped=sums.skipped + ~metrics.overflowed, overflows=sums.overflows + metrics.overflowed
    )
    return jax.tree.map(lambda a, b: jnp.where(metrics.skipped, a, b), skipped, taken)


def interval_means(sums: Sums) -> dict[str, float]:
    """Return the metrics of an interval as Python numbers.

    These are the mean loss and gradient norm, and the share of clipped steps, of the steps that
    were not skipped, and the counts of skipped steps, overflows, reset rows of the carry and
    rewinds. A mean over no steps is NaN.
    """
    steps = int(sums.steps) or math.nan
    return {
        "train_loss": sums.loss.mean(steps),
        "grad_norm": sums.grad_norm.mean(steps),
        "clipped": int(sums.clipped) / steps,
        "skipped": int(sums.skipped),
        "overflows": int(sums.overflows),
        "carry_resets": int(sums.carry_resets),
        "rewinds": int(sums.rewinds),
    }


class OptimizerEvents(NamedTuple):
    """The events of one step in the clips and guards of an optimizer."""

    clipped: jax.Array  # bool []
    zeroed: jax.Array  # bool [], whether a clip replaced non-finite entries by 0
    skipped: jax.Array  # bool []
    gave_up: jax.Array  # bool []
    overflowed: jax.Array  # bool []; skipped by the loss scaling


def optimizer_events(before: Any, after: Any) -> OptimizerEvents:
    """Return the events of a step from the optimizer's states before and after it.

    Clips, guards and the loss scaling count their events in their state, so a count that has grown
    is an event.
    """
    old_clips, clips = (find_states(s, ClipByGlobalNormState) for s in (before, after))
    old_guards, guards = (find_states(s, GuardState) for s in (before, after))
    old_scales, scales = (find_states(s, LossScalingState) for s in (before, after))
    overflowed = _any_true(a.skipped > b.skipped for a, b in zip(scales, old_scales, strict=True))
    guarded = _any_true(a.skipped > b.skipped for a, b in zip(guards, old_guards, strict=True))
    return OptimizerEvents(
        clipped=_any_true(a.clipped > b.clipped for a, b in zip(clips, old_clips, strict=True)),
        zeroed=_any_true(
            a.zeroed > b.zeroed
            for a, b in zip(clips, old_clips, strict=True)
            if a.zeroed is not None and b.zeroed is not None
        ),
        skipped=guarded | overflowed,
        gave_up=_any_true(guard.gave_up for guard in guards),
        overflowed=overflowed,
    )


def can_mend(opt_state: Any) -> bool:
    """Return whether an optimizer can skip a step, or replaces non-finite entries by 0."""
    clips = find_states(opt_state, ClipByGlobalNormState)
    zeroing = any(clip.zeroed is not None for clip in clips)
    skipping = (GuardState, LossScalingState)
    return zeroing or any(find_states(opt_state, kind) for kind in skipping)


def _any_true(flags: Iterable[jax.Array]) -> jax.Array:
    # inside by_gate a flag is an array with an entry for each gate
    return reduce(jnp.logical_or, map(jnp.any, flags), jnp.bool_(False))
