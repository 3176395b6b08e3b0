"""The data of a layer row, the same for every contender."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.bench.workloads import LayerRow
from lstm_optax.lstm import LSTMParams

RATE = 1e-4
"""The rate at which each of several steps moves the leaves against the gradient.

Every step then has new values, so that the compiler cannot move work out of the loop.
"""

State = tuple[Any, Any]
"""h and c of one layer."""


class Leaves(NamedTuple):
    """The arrays that the loss is differentiated with respect to."""

    weights: Any  # one LSTMParams per layer, or another library's weights
    x: Any  # [time, batch, features]
    states: tuple[State, ...]  # [batch, hidden] each


class LayerData(NamedTuple):
    """The leaves, the resets, and the weights of the loss: a weighted sum of all results."""

    leaves: Leaves
    resets: Any  # [time, batch], or None
    output_weights: Any  # [time, batch, hidden]
    state_weights: tuple[State, ...]


def make_data(row: LayerRow, seed: int) -> LayerData:
    """Draw float32 arrays: uniform weights as in PyTorch, normal inputs, a loss of order one."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    def uniform(hidden: int, *shape: int) -> Any:
        return rng.uniform(-(hidden**-0.5), hidden**-0.5, shape).astype(np.float32)

    weights = tuple(
        LSTMParams(uniform(n, i, 4 * n), uniform(n, n, 4 * n), uniform(n, 4 * n))
        for i, n in zip(row.widths, row.hidden, strict=True)
    )
    states = [(normal(row.batch, n), normal(row.batch, n)) for n in row.hidden]
    leaves = Leaves(weights, normal(row.time, row.batch, row.features), tuple(states))
    resets = rng.random((row.time, row.batch)) < row.resets if row.resets else None
    scale = (row.time * row.batch) ** -0.5
    output_weights = normal(row.time, row.batch, row.hidden[-1], scale=scale)
    state_weights = [(normal(row.batch, n), normal(row.batch, n)) for n in row.hidden]
    return LayerData(leaves, resets, output_weights, tuple(state_weights))


def named(leaves: Leaves) -> dict[str, np.ndarray]:
    """Return the leaves, in this library's layout, as float64 arrays by name."""
    arrays = {"x": leaves.x}
    for i, (weights, (h, c)) in enumerate(zip(leaves.weights, leaves.states, strict=True)):
        arrays |= {f"{name}.{i}": array for name, array in weights._asdict().items()}
        arrays |= {f"h.{i}": h, f"c.{i}": c}
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def named_outputs(outputs: Any, states: Any) -> dict[str, np.ndarray]:
    """Return the outputs and the last states as float64 arrays by name."""
    arrays = {"outputs": outputs}
    for i, (h, c) in enumerate(states):
        arrays |= {f"h.{i}": h, f"c.{i}": c}
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def take_steps(grad: Callable[[Any], tuple[jax.Array, Any]], leaves: Any, steps: int) -> Any:
    """Take steps against the gradient in one program; return the last leaves and all losses."""

    def body(leaves, _):
        value, grads = grad(leaves)
        return jax.tree.map(lambda p, g: p - RATE * g, leaves, grads), value

    return jax.lax.scan(body, leaves, length=steps)
