"""The loss over a whole data set, the carry running from window to window."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lstm_optax.training.sharding import BatchSharding

Measure = Callable[[Any, Any, Any], tuple[tuple[jax.Array, jax.Array], Any]]
"""(params, carry, batch) → ((summed loss, number of targets), new carry)."""


def make_evaluate(
    measure: Measure, carry: Any, batches: Sequence[Any], *, sharding: BatchSharding | None = None
) -> Callable[[Any], float]:
    """Return the function params → mean loss over all targets of all batches.

    Args:
      measure: (params, carry, batch) → ((summed loss, number of targets), new carry), without
        dropout.
      carry: the carry before the first batch.
      batches: the windows of the data set in order, all of one shape.
      sharding: how devices share the rows of each batch; None for one device.

    Raises:
      ValueError: rows that the devices do not divide.
    """
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *batches)
    if sharding:
        stacked, carry = sharding.batches(stacked), sharding.carry(carry)
    else:
        stacked = jax.device_put(stacked)

    sums = jax.jit(partial(sum_over, measure))  # its own, and freed with it

    def evaluate(params: Any) -> float:
        params = sharding.whole(params) if sharding else params
        total, count = sums(params, carry, stacked)
        return float(total) / int(count)

    return evaluate


def sum_over(measure: Measure, params: Any, carry: Any, stacked: Any):
    """Return the summed loss and the number of targets over batches stacked along a first axis."""

    def body(carry, batch):
        sums, carry = measure(params, carry, batch)
        return carry, sums

    totals, counts = jax.lax.scan(body, carry, stacked)[1]
    return totals.sum(), counts.sum()
