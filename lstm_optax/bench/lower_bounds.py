"""What no program can do without: the matrix products of a row, or its memory traffic."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.bench.layer_data import take_steps
from lstm_optax.bench.programs import Program, compile_ahead, compile_program
from lstm_optax.bench.workloads import LayerRow, OptimizerRow, TrainRow

Shapes = Sequence[Sequence[tuple[int, int]]]
"""For each layer, the shapes of the kernels whose products are added."""


def products_floor(row: LayerRow | TrainRow, measure: str, steps: int) -> Program:
    """Return the matrix products of a row and nothing else, each over all time steps at once.

    Forward z = Σ x·W over the kernels of a layer, such as x·kernel_ih + h·kernel_hh; backward z·Wᵀ
    and xᵀ·z for each, with z in the place of the gradient by it. Each x is random.
    """
    rng = np.random.default_rng(0)
    rows = row.time * row.batch

    def normal(*shape: int):
        return jnp.asarray(rng.normal(size=shape, scale=shape[0] ** -0.5), jnp.float32)

    factors = [[(normal(rows, i), normal(i, o)) for i, o in layer] for layer in _kernels(row)]

    def forward(factors):
        return [sum(x @ w for x, w in layer) for layer in factors]

    def backward(factors):
        z = forward(factors)
        return [[(z @ w.T, x.T @ z) for x, w in f] for z, f in zip(z, factors, strict=True)]

    if measure == "forward":
        return compile_program(forward, (factors,), _nothing)
    if measure == "step":
        return compile_program(backward, (factors,), _nothing)
    zero = jnp.zeros([])
    return compile_program(
        lambda factors: take_steps(lambda factors: (zero, backward(factors)), factors, steps),
        (factors,),
        _nothing,
        steps=steps,
    )


def traffic_floor(row: OptimizerRow) -> Program:
    """Return a program that moves the bytes of a clip and an update with two moments, once.

    Eight arrays of the parameters' size: the gradient is read twice, since its norm is needed
    first, parameters and moments are read and written. Here an array four times as large is read
    and written in place.
    """
    size = sum(int(np.prod(shape)) for shape in row.leaves)
    array = jnp.zeros(4 * size)
    move = jax.jit(lambda x: x + 1, donate_argnums=0)
    compiled, seconds, memory = compile_ahead(move, array)
    held = [array]

    def call():
        held[0] = jax.block_until_ready(compiled(held[0]))

    return Program(call, _nothing, compile_seconds=seconds, temp_bytes=memory)


def _kernels(row: LayerRow | TrainRow) -> Shapes:
    if isinstance(row, TrainRow):
        lstm = [(row.embedding, 4 * row.hidden), (row.hidden, 4 * row.hidden)]
        return [lstm, [(row.hidden, row.vocabulary)]]
    sizes = zip(row.widths, row.hidden, strict=True)
    return [[(i, 4 * n), (n, 4 * n)] for i, n in sizes]


def _nothing(result: Any) -> dict[str, np.ndarray]:
    return {}
