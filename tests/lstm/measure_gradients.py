"""Measure forward and backward pass of the layer for each way to get the gradient, and Flax.

On a GPU also with 1 and 8 steps per iteration of the loops, instead of 4.

python tests/lstm/measure_gradients.py
"""

import time
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lstm_optax import LSTMParams, lstm_sequence
from lstm_optax.lstm.backends import cudnn, fused

SHAPES = (
    (365, 256, 32, 64),
    (100, 64, 256, 256),
    (128, 32, 128, 128),
    (784, 32, 1, 128),
    (35, 20, 650, 650),
)
ROUNDS, CALLS = 5, 3
UNROLL = fused.UNROLL


def main() -> None:
    """Print milliseconds for each shape (time, batch, features, hidden) and way."""
    ways: dict[str, dict] = {name: dict(gradient=name) for name in ("stored", "remat", "autodiff")}
    if jax.default_backend() != "cpu":
        ways |= {f"stored, {n} per iteration": dict(unroll=n) for n in (1, 8)}
    if not cudnn.missing():
        ways["cudnn"] = dict(backend="cudnn")
    for shape in SHAPES:
        params, x = _draw(*shape)
        programs = {name: _compile(options, params, x) for name, options in ways.items()}
        programs |= {f"flax, unroll {n}": _compile_flax(*shape, unroll=n) for n in (1, 4)}
        seconds = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, program in programs.items():
                began = time.perf_counter()
                jax.block_until_ready([program(params, x) for _ in range(CALLS)])
                seconds[name].append((time.perf_counter() - began) / CALLS)
        print(shape, {name: f"{1e3 * median(s):.2f} ms" for name, s in seconds.items()}, flush=True)


def _compile_flax(steps: int, batch: int, features: int, hidden: int, unroll: int):
    cell = nnx.OptimizedLSTMCell(features, hidden, rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(nnx.RNN(cell, time_major=True, unroll=unroll))
    carry = (jnp.zeros((batch, hidden)), jnp.zeros((batch, hidden)))

    def loss(weights, x):
        return jnp.sum(jnp.sin(nnx.merge(graphdef, weights)(x, initial_carry=carry)))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))
    jax.block_until_ready(gradient(weights, jnp.zeros((steps, batch, features))))
    return lambda params, x: gradient(weights, x)


def _draw(steps: int, batch: int, features: int, hidden: int) -> tuple[LSTMParams, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = ((features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (steps, batch, features))
    *params, x = (jnp.asarray(0.1 * rng.normal(size=s), jnp.float32) for s in shapes)
    return LSTMParams(*params), x


def _compile(options, params, x):
    options = dict(options)
    fused.UNROLL = options.pop("unroll", UNROLL)

    def loss(params, x):
        return jnp.sum(jnp.sin(lstm_sequence(params, x, **options)[0]))

    program = jax.jit(jax.grad(loss, argnums=(0, 1)))
    jax.block_until_ready(program(params, x))
    return program


if __name__ == "__main__":
    main()
