"""Running sums of what a step measures, kept on the device until the host asks."""

import math
from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_optax.transforms import ClipByGlobalNormState, GuardState, find_states


class StepMetrics(NamedTuple):
    """What one step measures."""

    loss: jax.Array  # float []
    grad_norm: jax.Array  # float [], of all gradients together, before the optimizer
    largest: Any  # parameters' tree: max |g| of each leaf where the step went wrong, else 0
    clipped: jax.Array  # bool [], whether a clip of the optimizer scaled the gradient
    skipped: jax.Array  # bool [], whether a guard of the optimizer skipped the step
    gave_up: jax.Array  # bool [], whether a guard has skipped too many in a row


class Total(NamedTuple):
    """A running sum in two parts. One float32 is 1 % off after 10⁶ equal terms, 12 % after 10⁷."""

    value: jax.Array  # float []
    rest: jax.Array  # float [], the part of the sum that rounding has taken from the value

    def plus(self, term: jax.Array) -> "Total":
        """Return the sum with one more term, by Knuth's TwoSum; no part of it is rounded away."""
        term = term.astype(self.value.dtype)
        value = self.value + term
        seen = value - self.value
        lost = (self.value - (value - seen)) + (term - seen) + self.rest
        return _two_parts(value, lost)

    def mean(self, count: float) -> float:
        """Return the sum divided by a count, as a number of the host."""
        return (float(self.value) + float(self.rest)) / count


def _two_parts(value: jax.Array, rest: jax.Array) -> Total:
    """Return value + rest, the rest at most half a unit in the last place of the value."""
    whole = value + rest
    left = rest - (whole - value)
    finite = jnp.isfinite(whole)  # infinity − infinity is not a number
    return Total(jnp.where(finite, whole, value), jnp.where(finite, left, 0.0))


class Sums(NamedTuple):
    """Sums over the steps since the last record; a part of the training state, so that an
    interrupted interval goes on where it was."""

    steps: jax.Array  # int32 [], without those skipped
    loss: Total
    grad_norm: Total
    clipped: jax.Array  # int32 []
    skipped: jax.Array  # int32 []


def zero_sums() -> Sums:
    """Return the sums over no steps."""
    steps, clipped, skipped = (jnp.zeros([], jnp.int32) for _ in range(3))
    loss, grad_norm = (Total(jnp.zeros([]), jnp.zeros([])) for _ in range(2))
    return Sums(steps, loss, grad_norm, clipped, skipped)


def add(sums: Sums, metrics: StepMetrics) -> Sums:
    """Return the sums with one more step; of one that was skipped, only that it was."""
    taken = Sums(
        steps=sums.steps + 1,
        loss=sums.loss.plus(metrics.loss),
        grad_norm=sums.grad_norm.plus(metrics.grad_norm),
        clipped=sums.clipped + metrics.clipped,
        skipped=sums.skipped,
    )
    skipped = sums._replace(skipped=sums.skipped + 1)
    return jax.tree.map(lambda a, b: jnp.where(metrics.skipped, a, b), skipped, taken)


def means(sums: Sums) -> dict[str, float]:
    """Return, as numbers of the host, the mean loss and gradient norm of the steps taken, the share
    of them that was clipped, and how many were skipped; a mean over no steps is NaN."""
    steps = int(sums.steps) or math.nan
    return {
        "train_loss": sums.loss.mean(steps),
        "grad_norm": sums.grad_norm.mean(steps),
        "clipped": int(sums.clipped) / steps,
        "skipped": int(sums.skipped),
    }


class Watch(NamedTuple):
    """What the clips and guards of an optimizer say of a step."""

    clipped: jax.Array  # bool []
    skipped: jax.Array  # bool []
    gave_up: jax.Array  # bool []


def watch(before: Any, after: Any) -> Watch:
    """Compare the optimizer's state before a step and after it."""
    old_clips, clips = (find_states(s, ClipByGlobalNormState) for s in (before, after))
    old_guards, guards = (find_states(s, GuardState) for s in (before, after))
    return Watch(
        clipped=_any(a.clipped > b.clipped for a, b in zip(clips, old_clips, strict=True)),
        skipped=_any(a.skipped > b.skipped for a, b in zip(guards, old_guards, strict=True)),
        gave_up=_any(guard.gave_up for guard in guards),
    )


def _any(flags: Iterable[jax.Array]) -> jax.Array:
    return reduce(jnp.logical_or, map(jnp.any, flags), jnp.bool_(False))  # one for each in by_gate
