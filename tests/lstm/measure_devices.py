"""Time of one gradient of an LSTM layer on one CPU device, and with its rows split over two.

    python tests/lstm/measure_devices.py

Eight steps in one dispatch, the two programs in turns; prints medians and the speed-up.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lstm_optax as lo
from lstm_optax.bench.layer_data import make_data
from lstm_optax.bench.workloads import LayerRow

SHAPES = [  # time, batch, features, hidden
    (35, 20, 200, 200),
    (128, 32, 128, 128),
    (784, 32, 1, 128),
    (365, 256, 32, 64),
    (35, 20, 650, 650),
    (100, 64, 256, 256),
]
STEPS, SECONDS = 8, 5.0


def several_steps(params, x):
    """Run gradient steps with a negligible rate, each from the result of the step before."""

    def loss(params, x):
        return jnp.sum(lo.lstm_sequence(params, x, backend="fused")[0] ** 2)

    def step(arguments, _):
        grads = jax.grad(loss, argnums=(0, 1))(*arguments)
        return jax.tree.map(lambda p, g: p - 1e-6 * g, arguments, grads), None

    return jax.lax.scan(step, (params, x), None, length=STEPS)[0]


def compile_on(devices: int, time_steps: int, batch: int, features: int, hidden: int):
    """Return a call of the compiled steps with the rows split over the devices."""
    row = LayerRow(time_steps, batch, features, (hidden,), "measured")
    ((params,), x, _), *_ = make_data(row, 0)
    mesh = jax.make_mesh(
        (devices,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    params = jax.device_put(params, NamedSharding(mesh, P()))
    x = jax.device_put(x, NamedSharding(mesh, P(None, "rows")))
    compiled = jax.jit(several_steps).lower(params, x).compile()
    return lambda: jax.block_until_ready(compiled(params, x))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    print(f"JAX {jax.__version__}; milliseconds for each step")
    for shape in SHAPES:
        calls = [compile_on(devices, *shape) for devices in (1, 2)]
        for call in calls:
            call()
        seconds, began = [], time.perf_counter()
        while time.perf_counter() - began < SECONDS or len(seconds) < 5:
            turn = []
            for call in calls:
                start = time.perf_counter()
                call()
                turn.append((time.perf_counter() - start) / STEPS)
            seconds.append(turn)
        one, two = 1e3 * np.median(seconds, axis=0)
        ratio = np.median([a / b for a, b in seconds])
        print(f"{shape!s:22} {one:7.1f} on one, {two:7.1f} on two: {ratio:.2f} times as fast")
