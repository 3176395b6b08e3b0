"""Speed of the calls of the native backend: GFLOP/s of their products, on all cores.

    python tests/lstm/measure_native.py [TIME BATCH FEATURES HIDDEN]

In float32, and in bfloat16 where the CPU multiplies in it; "all" is the sum of the calls. Last is
a large product of XLA's own in float32, for comparison. Medians of 15 calls, taken in turn. A call
includes the packing of the weights, the wake of the threads, and the first touch of its results.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.lstm.native import calls, library

SHAPES = [
    *((35, 20, 200, 200), (128, 32, 128, 128), (784, 32, 1, 128)),
    *((365, 256, 32, 64), (35, 20, 650, 650), (100, 64, 256, 256)),
]
LARGE = 2048


def programs(time_steps, batch, features, hidden, bfloat16=False):
    """Return the calls by name, each with the operations of its products."""
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def draw(*shape):
        return 0.1 * jax.random.normal(next(keys), shape)

    x, bias = draw(time_steps, batch, features), draw(4 * hidden)
    kernel_ih, kernel_hh = draw(features, 4 * hidden), draw(hidden, 4 * hidden)
    zero, flags = jnp.zeros((batch, hidden)), jnp.zeros((0, batch), jnp.uint8)
    forward = jax.jit(calls.forward(False, True, bfloat16=bfloat16))
    arguments = (x, kernel_ih, kernel_hh, bias, zero, zero, flags)
    outputs, _, _, gates, c_before = forward(*arguments)
    # overwritten in place: a new buffer for each call, made before the clock starts
    backward = jax.jit(calls.backward(False, 0, bfloat16), donate_argnums=0)
    rest = (c_before, kernel_hh, outputs, zero, zero, flags, jnp.zeros(6))
    weights = jax.jit(calls.weight_gradient(False, features, bfloat16=bfloat16))
    inputs = jax.jit(calls.input_gradient(bfloat16))
    product = 2 * time_steps * batch * 4 * hidden
    return {
        "forward": (forward, lambda: arguments, product * (features + hidden)),
        "backward": (backward, lambda: (jnp.array(gates), *rest), product * hidden),
        "weights": (
            weights,
            lambda: (x, zero, outputs, flags, gates),
            product * (features + hidden),
        ),
        "inputs": (inputs, lambda: (gates, kernel_ih), product * features),
    }


def measure(shape):
    """Print the milliseconds and GFLOP/s of each call of a shape."""
    dtypes = [False, True] if library.multiplies_in_bfloat16() else [False]
    found = {
        (dtype, name): program
        for dtype in dtypes
        for name, program in programs(*shape, bfloat16=dtype).items()
    }
    large, square = jax.jit(jnp.matmul), jnp.ones((LARGE, LARGE))
    found[False, "XLA"] = large, lambda: (square, square), 2 * LARGE**3
    taken = {name: [] for name in found}
    for _ in range(15):
        for name, (call, make, _) in found.items():
            arguments = jax.block_until_ready(make())
            began = time.perf_counter()
            jax.block_until_ready(call(*arguments))
            taken[name].append(time.perf_counter() - began)
    for dtype in dtypes:
        own = {n: (np.median(taken[d, n]), found[d, n][2]) for d, n in found if d == dtype}
        layer = [value for name, value in own.items() if name != "XLA"]
        own = {"all": tuple(map(sum, zip(*layer, strict=True))), **own}
        parts = [f"{n} {1e3 * s:.2f} ms, {o / s / 1e9:.0f}" for n, (s, o) in own.items()]
        print(*shape, "bfloat16" if dtype else "float32", " · ".join(parts), flush=True)


if __name__ == "__main__":
    print(library.instructions())
    for shape in [tuple(map(int, sys.argv[1:]))] if len(sys.argv) > 1 else SHAPES:
        measure(shape)
