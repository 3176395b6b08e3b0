"""Means over a whole data set; the carry runs from window to window."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from lstm_optax.checks import check_callable
from lstm_optax.training.batches import check_batch, stack_batches
from lstm_optax.training.sharding import BatchSharding
from lstm_optax.trees import check_same_tree, describe_leaf, describe_leaves, is_array

Measure = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(params, carry, batch) → ((sum, number of targets), new carry), or a dictionary of such pairs."""


class Evaluation:
    """The function params → mean over all targets of all batches; made by `make_evaluate`."""

    def __init__(
        self, measure: Measure, carry: Any, stacks: list[Any], sharding: BatchSharding | None
    ):
        # a program of its own is freed with the evaluation; a static argument of a module-level
        # jit would keep `measure` alive
        self._sums = jax.jit(partial(sum_over_batches, measure))
        self._carry, self._stacks, self._sharding = carry, stacks, sharding

    def __call__(self, params: Any) -> Any:
        params = self._sharding.whole(params) if self._sharding else params
        carry, parts = self._carry, []
        for stacked in self._stacks:
            sums, carry = self._sums(params, carry, stacked)
            parts.append(sums)
        parts = jax.device_get(parts)  # after the loop, so that no dispatch waits for the host
        if isinstance(parts[0], Mapping):
            return {name: _mean_of_parts(name, [p[name] for p in parts]) for name in parts[0]}
        return _mean_of_parts("loss", parts)

    def names(self, params: Any) -> list[str]:
        """Return the names of the means without computing them; raises as `measure` does."""
        sums, _ = jax.eval_shape(self._sums, params, self._carry, self._stacks[0])
        return list(sums) if isinstance(sums, Mapping) else ["loss"]


def make_evaluate(
    measure: Measure, carry: Any, batches: Iterable[Any], *, sharding: BatchSharding | None = None
) -> Callable[[Any], Any]:
    """Return the function params → mean loss over all targets of all batches.

    A mean is the sum over all batches divided by the number of targets in all batches, added up in
    double precision. Batches of one shape run in one dispatch. If shapes differ, each batch is a
    dispatch, and each shape is compiled once.

    Args:
      measure: (params, carry, batch) → ((summed loss, number of targets), new carry), without
        dropout. For several metrics, return a dictionary of such pairs by name instead of the
        pair; the evaluation then returns a dictionary of means.
      carry: the carry before the first batch.
      batches: the windows of the data set in order.
      sharding: how devices share the rows of each batch; None for one device.

    Raises:
      ValueError: no batches, a batch without arrays, or a number of rows that the devices do not
        divide; when the function is called, a `measure` of another form, or no targets.
    """
    check_callable("measure", measure, "a function (params, carry, batch) → (sums, new carry)")
    batches = list(batches)
    if not batches:
        raise ValueError("batches is empty; expected at least one batch to evaluate on")
    for i, batch in enumerate(batches):
        check_batch(f"batch {i}", batch)
    first = batches[0]
    same_shapes = all(
        describe_leaves(batch) == describe_leaves(first)
        and jax.tree.structure(batch) == jax.tree.structure(first)
        for batch in batches
    )
    stacks = [stack_batches(batches)] if same_shapes else [stack_batches([b]) for b in batches]
    place = sharding.batches if sharding else jax.device_put
    carry = sharding.carry(carry) if sharding else carry
    return Evaluation(measure, carry, [place(stacked) for stacked in stacks], sharding)


def sum_over_batches(measure: Measure, params: Any, carry: Any, stacked: Any) -> tuple[Any, Any]:
    """Return the sums and target counts of batches stacked along a first axis, and the carry.

    Raises:
      ValueError: `measure` does not return pairs of scalars and a carry of the shape that it got.
    """

    def body(carry, batch):
        found = measure(params, carry, batch)
        if not (isinstance(found, tuple) and len(found) == 2 and _are_sums(found[0])):
            raise ValueError(
                f"measure returned {jax.tree.map(describe_leaf, found)}; expected ((sum, number of "
                "targets), new carry) with scalars in the pair, or a dictionary of such pairs "
                "instead of the pair"
            )
        check_same_tree("the carry of measure", found[1], carry, "return a carry like the argument")
        return found[1], found[0]

    carry, sums = jax.lax.scan(body, carry, stacked)
    return sums, carry


def _are_sums(sums: Any) -> bool:
    pairs = list(sums.values()) if isinstance(sums, Mapping) else [sums]
    return bool(pairs) and all(
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(is_array(part) and np.ndim(part) == 0 for part in pair)
        for pair in pairs
    )


def _mean_of_parts(name: str, parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    total, count = (np.sum(np.concatenate(part), dtype=float) for part in zip(*parts, strict=True))
    if not count > 0:
        raise ValueError(
            f"the batches have {count:g} targets for {name!r}; expected at least one to evaluate on"
        )
    return float(total / count)
