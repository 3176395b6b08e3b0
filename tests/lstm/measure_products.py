"""Speed of XLA's matrix products in an LSTM's loop; small products may use one core only.

    python tests/lstm/measure_products.py

Many products in one dispatch, each of the result before; prints the best of several runs.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = [  # rows, inner, columns
    *((32, inner, 512) for inner in (128, 192, 256)),
    *((20, 128, columns) for columns in (512, 768, 800, 1024)),
    *((rows, 64, 256) for rows in (128, 256, 512, 1024)),
    (64, 256, 1024),
    (4096, 128, 512),
]
REPEATS, SECONDS = 200, 0.3


def products(x, kernel):
    """Multiply repeatedly; a barrier keeps the compiler from simplifying the loop."""

    def body(_, x):
        y = jax.lax.optimization_barrier(x @ kernel)
        return jax.lax.dynamic_update_slice(x, 1e-9 * y[:1, :1], (0, 0))

    return jax.lax.fori_loop(0, REPEATS, body, x)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    print(f"JAX {jax.__version__}")
    for rows, inner, columns in SHAPES:
        x = jnp.asarray(rng.normal(size=(rows, inner)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(inner, columns)), jnp.float32)
        compiled = jax.jit(products).lower(x, kernel).compile()
        times, began = [], time.perf_counter()
        while time.perf_counter() - began < SECONDS or len(times) < 3:
            start = time.perf_counter()
            jax.block_until_ready(compiled(x, kernel))
            times.append((time.perf_counter() - start) / REPEATS)
        speed = 2 * rows * inner * columns / min(times) / 1e9
        largest = max(rows * inner, inner * columns, rows * columns)
        print(
            f"[{rows}, {inner}] × [{inner}, {columns}]: {1e6 * min(times):8.1f} µs, "
            f"{speed:6.1f} GFLOP/s; largest array {largest:,}"
        )
