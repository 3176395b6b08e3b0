"""The programs of a layer row: forward, one step, several steps per dispatch, lower bound."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.bench import adapters
from lstm_optax.bench.config import BACKEND, LOWER_BOUND, OURS
from lstm_optax.bench.layer_data import (
    LayerData,
    Leaves,
    make_data,
    named,
    named_outputs,
    take_steps,
)
from lstm_optax.bench.lower_bounds import matmul_bound
from lstm_optax.bench.programs import Program, Unavailable, compile_program
from lstm_optax.bench.torch_layer import torch_layer
from lstm_optax.bench.workloads import LayerRow
from lstm_optax.lstm import BACKENDS


def layer_program(
    name: str, row: LayerRow, measure: str, steps: int, seed: int, unroll: int = 1
) -> Program:
    """Return the program of a contender for a measure of a row.

    Args:
      name: a key of CONTENDERS, "lstm_optax", "lower_bound", or "backend.NAME".
      row: the workload.
      measure: "forward", "step", "double" or "steps".
      steps: the number of steps of the measure "steps".
      seed: seed of the data.
      unroll: unroll factor of the contenders with a scan.

    Raises:
      Unavailable: the contender cannot run this row.
    """
    if measure == "double":
        row, measure = replace(row, time=2 * row.time), "step"
    if name == LOWER_BOUND:
        return matmul_bound(row, measure, steps)
    data = make_data(row, seed)
    if name == "torch":
        return torch_layer(data, measure, steps)
    layer = _layer(name, data, unroll)
    if layer.batch_major:
        data = _batch_major(data)
    data = jax.tree.map(jnp.asarray, data)._replace(leaves=_jax_leaves(data.leaves, layer.weights))
    try:
        return _compile_layer(layer, data, measure, steps)
    except ValueError as error:
        if name.startswith(BACKEND):  # the message says what the backend lacks
            raise Unavailable(str(error)) from error
        raise


def _layer(name: str, data: LayerData, unroll: int) -> adapters.JaxLayer:
    if name == OURS:
        return adapters.lstm_optax_layer(data)
    if name.startswith(BACKEND):
        backend = name.removeprefix(BACKEND)
        if backend not in BACKENDS:
            raise Unavailable(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
        return adapters.lstm_optax_layer(data, backend)
    if name in adapters.SCANS:
        return adapters.SCANS[name](data, unroll)
    return adapters.keras(data)


def _compile_layer(layer: adapters.JaxLayer, data: LayerData, measure: str, steps: int) -> Program:
    def forward(leaves: Leaves):
        return layer.apply(leaves.weights, leaves.x, leaves.states, data.resets)

    def loss(leaves: Leaves, data: LayerData):
        outputs, states = layer.apply(leaves.weights, leaves.x, leaves.states, data.resets)
        products = jax.tree.map(jnp.vdot, states, data.state_weights)
        return sum(jax.tree.leaves(products), jnp.vdot(outputs, data.output_weights))

    def in_our_layout(leaves: Any) -> dict[str, np.ndarray]:
        x = jnp.swapaxes(leaves.x, 0, 1) if layer.batch_major else leaves.x
        return named(leaves._replace(weights=layer.params(leaves.weights), x=x))

    def changes(result: Any) -> dict[str, np.ndarray]:
        last, losses = result
        change = {name: a - before[name] for name, a in in_our_layout(last).items()}
        return change | {"losses": np.asarray(losses, np.float64)}

    def outputs_of(result: Any) -> dict[str, np.ndarray]:
        outputs, states = result
        return named_outputs(jnp.swapaxes(outputs, 0, 1) if layer.batch_major else outputs, states)

    if measure == "forward":
        return compile_program(forward, (data.leaves,), outputs_of)
    grad = jax.value_and_grad(loss)
    if measure == "step":
        return compile_program(
            grad, (data.leaves, data), lambda r: in_our_layout(r[1]) | {"losses": np.asarray(r[0])}
        )
    before = in_our_layout(data.leaves)
    return compile_program(
        lambda leaves, data: take_steps(lambda leaves: grad(leaves, data), leaves, steps),
        (data.leaves, data),
        changes,
        steps=steps,
    )


def _batch_major(data: LayerData) -> LayerData:
    leaves = data.leaves._replace(x=np.swapaxes(data.leaves.x, 0, 1))
    weights = np.swapaxes(data.output_weights, 0, 1)
    return data._replace(leaves=leaves, output_weights=weights)


def _jax_leaves(leaves: Leaves, weights: Any) -> Leaves:
    """Return the leaves as JAX arrays, with another library's weights."""
    return jax.tree.map(jnp.asarray, leaves._replace(weights=weights))
