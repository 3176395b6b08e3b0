"""Time of each instruction in one gradient of an LSTM layer, on a CPU.

    python tests/lstm/measure_parts.py TIME BATCH FEATURES HIDDEN [OPTION=VALUE …]

Options are passed to the compiler, such as xla_cpu_prefer_vector_width=512. JAX's profiler traces
the compiled program once; the times of an instruction in a loop are added up. Instructions may
overlap on two cores, so their sum can exceed the total time.
"""

import collections
import glob
import sys
import tempfile
import time

import jax
import jax.numpy as jnp

import lstm_optax as lo
from lstm_optax.bench.layer_data import make_data
from lstm_optax.bench.workloads import LayerRow

TRACED = {"xla_cpu_enable_xprof_traceme": True}


def compile_gradient(time_steps, batch, features, hidden, options):
    """Return the compiled gradient for all arguments, and the arguments."""
    row = LayerRow(time_steps, batch, features, (hidden,), "measured")
    ((params,), x, _), *_ = jax.device_put(make_data(row, 0))

    def loss(params, x):
        outputs, _ = lo.lstm_sequence(params, x, backend="fused")
        return jnp.sum(outputs**2)

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, x)
    return program.compile(compiler_options=TRACED | options), (params, x)


def events(compiled, arguments):
    """Return milliseconds of an untraced call, and [calls, milliseconds] of each instruction."""
    for _ in range(3):
        jax.block_until_ready(compiled(*arguments))
    began = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    whole = 1e3 * (time.perf_counter() - began)
    found = collections.defaultdict(lambda: [0, 0.0])
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(*arguments))
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        for plane in jax.profiler.ProfileData.from_file(path).planes:
            for line in plane.lines:
                for event in line.events if "python" not in line.name else ():
                    found[event.name][0] += 1
                    found[event.name][1] += event.duration_ns / 1e6
    return whole, found


if __name__ == "__main__":
    sizes, options = [int(n) for n in sys.argv[1:5]], dict(o.split("=") for o in sys.argv[5:])
    whole, found = events(*compile_gradient(*sizes, options))
    steps = sizes[0]
    loops = {name for name in found if name.startswith("while")}
    kept = {n: v for n, v in found.items() if "::" not in n and not n.startswith("end:")}
    inside = sum(ms for n, (calls, ms) in kept.items() if calls >= steps and n not in loops)
    products = sum(
        ms for n, (calls, ms) in kept.items() if calls >= steps and n.startswith(("ynn", "dot"))
    )
    print(
        f"{sizes}, JAX {jax.__version__}: {whole:.1f} ms; in the loops {inside:.1f}, "
        f"of that products {products:.1f}"
    )
    for name, (calls, ms) in sorted(kept.items(), key=lambda item: -item[1][1])[:20]:
        print(f"{ms:9.2f} ms {calls:6} calls {1e3 * ms / calls:9.1f} µs each  {name}")
