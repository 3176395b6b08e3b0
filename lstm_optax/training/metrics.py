"""Running sums of what a step measures, kept on the device until the host asks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class StepMetrics(NamedTuple):
    """What one step measures."""

    loss: jax.Array  # float []
    grad_norm: jax.Array  # float [], of all gradients together, before the optimizer
    largest: Any  # parameters' tree: max |g| of each leaf where the step is not finite, else 0


class Sums(NamedTuple):
    """Sums over the steps since the last record; a part of the training state, so that an
    interrupted interval goes on where it was."""

    steps: jax.Array  # int32 []
    loss: jax.Array  # float32 []
    grad_norm: jax.Array  # float32 []


def zero_sums() -> Sums:
    """Return the sums over no steps."""
    return Sums(jnp.zeros([], jnp.int32), jnp.zeros([]), jnp.zeros([]))


def add(sums: Sums, metrics: StepMetrics) -> Sums:
    """Return the sums with one more step."""
    return Sums(sums.steps + 1, sums.loss + metrics.loss, sums.grad_norm + metrics.grad_norm)


def means(sums: Sums) -> dict[str, float]:
    """Return the mean loss and gradient norm as numbers of the host."""
    steps = max(int(sums.steps), 1)
    return {"train_loss": float(sums.loss) / steps, "grad_norm": float(sums.grad_norm) / steps}
