"""Lower bounds of a row's time: its matrix products alone, or its memory traffic alone."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.bench.layer_data import take_steps
from lstm_optax.bench.programs import Program, compile_ahead, compile_program
from lstm_optax.bench.workloads import LayerRow, OptimizerRow, TrainRow

Shapes = Sequence[Sequence[tuple[int, int]]]
"""The shapes of each layer's kernels; the layer adds their products."""


def matmul_bound(row: LayerRow | TrainRow, measure: str, steps: int) -> Program:
    """Return a program of the matrix products of a row alone, each over all time steps at once.

        forward   z = Σ x·W over the kernels W of a layer, as in x·kernel_ih + h·kernel_hh
        backward  z·Wᵀ and xᵀ·z for each kernel, with z in place of its cotangent

    Each x is random.
    """
    rng = np.random.default_rng(0)
    rows = row.time * row.batch

    def normal(*shape: int):
        return jnp.asarray(rng.normal(size=shape, scale=shape[0] ** -0.5), jnp.float32)

    factors = [[(normal(rows, i), normal(i, o)) for i, o in layer] for layer in _kernel_shapes(row)]

    def forward(factors):
        return [sum(x @ w for x, w in layer) for layer in factors]

    def backward(factors):
        z = forward(factors)
        return [[(z @ w.T, x.T @ z) for x, w in f] for z, f in zip(z, factors, strict=True)]

    if measure == "forward":
        return compile_program(forward, (factors,), _no_values)
    if measure == "step":
        return compile_program(backward, (factors,), _no_values)
    zero = jnp.zeros([])
    return compile_program(
        lambda factors: take_steps(lambda factors: (zero, backward(factors)), factors, steps),
        (factors,),
        _no_values,
        steps=steps,
    )


def traffic_bound(row: OptimizerRow) -> Program:
    """Return a program that moves once the bytes of a clip and an update with two moments.

    These are eight arrays of the parameters' size: the gradient is read twice, since the clip needs
    its norm first; the parameters and both moments are read and written. The program reads and
    writes, in place, one array of four times that size.
    """
    size = sum(int(np.prod(shape)) for shape in row.leaves)
    array = jnp.zeros(4 * size)
    move = jax.jit(lambda x: x + 1, donate_argnums=0)
    compiled, seconds, memory = compile_ahead(move, array)
    state = [array]  # donated to each call

    def call():
        state[0] = jax.block_until_ready(compiled(state[0]))

    return Program(call, _no_values, compile_seconds=seconds, temp_bytes=memory)


def _kernel_shapes(row: LayerRow | TrainRow) -> Shapes:
    if isinstance(row, TrainRow):
        lstm = [(row.embedding, 4 * row.hidden), (row.hidden, 4 * row.hidden)]
        return [lstm, [(row.hidden, row.vocabulary)]]
    sizes = zip(row.widths, row.hidden, strict=True)
    return [[(i, 4 * n), (n, 4 * n)] for i, n in sizes]


def _no_values(result: Any) -> dict[str, np.ndarray]:
    return {}
