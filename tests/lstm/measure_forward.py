"""Time of a forward pass without gradient, with and without one hoisted input product, on a CPU.

    python tests/lstm/measure_forward.py

Hoisted, the product fills a buffer that grows with time; otherwise each step computes its own.
`fused._CACHE_ENTRIES` is the largest buffer that pays. Each time is the best of several.
"""

import time

import jax
import numpy as np

import lstm_optax as lo
from lstm_optax.bench.layer_data import make_data
from lstm_optax.bench.workloads import LayerRow
from lstm_optax.lstm.backends import fused

SHAPES = [  # time, batch, features, hidden
    (35, 20, 200, 200),
    (128, 32, 128, 128),
    (100, 64, 256, 256),
    (35, 20, 1150, 1150),
    (1024, 32, 128, 128),
    (784, 32, 1, 128),
    (200, 64, 256, 256),
    (365, 256, 32, 64),
    (365, 256, 32, 256),
]
SECONDS = 1.0


def compiled(cached, shape):
    fused._CACHE_ENTRIES = cached
    *sizes, hidden = shape
    ((params,), x, _), *_ = jax.device_put(make_data(LayerRow(*sizes, (hidden,), "measured"), 0))
    program = (
        jax.jit(lambda params, x: lo.lstm_sequence(params, x, backend="fused"))
        .lower(params, x)
        .compile()
    )
    return lambda: jax.block_until_ready(program(params, x))


def milliseconds(calls):
    """Return the best time of each call; the calls take turns."""
    best, began = dict.fromkeys(calls, np.inf), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    print(f"JAX {jax.__version__}; [time, batch, features, hidden]")
    for shape in SHAPES:
        entries = 4 * shape[0] * shape[1] * shape[3]
        best = milliseconds({n: compiled(c, shape) for n, c in (("before", np.inf), ("in", 0))})
        print(
            f"{shape!s:24} {entries / 2**20:6.1f} Mi entries: before the loop "
            f"{best['before']:7.2f} ms, in it {best['in']:7.2f} ms"
        )
