"""Measure the clips and the guard: a step of Nadam on 24 million parameters with and without.

    python tests/transforms/measure_cost.py

Each program runs in turn, many times; shown are medians, and their ratio to that of Optax's clip.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lstm_optax as lo

SHAPES = {  # of the AWD-LSTM: embedding, three layers, biases
    "embedding": (10_000, 400),
    "layer0": (1550, 4600),
    "layer1": (2300, 4600),
    "layer2": (1550, 1600),
    "biases": (10_800,),
}
PROGRAMS = {
    "nadam": lambda: lo.nadam(1e-3),
    "optax clip, nadam": lambda: optax.chain(optax.clip_by_global_norm(1.0), lo.nadam(1e-3)),
    "clip, nadam": lambda: optax.chain(lo.clip_by_global_norm(1.0), lo.nadam(1e-3)),
    "clip to zero, nadam": lambda: optax.chain(
        lo.clip_by_global_norm(1.0, nonfinite="zero"), lo.nadam(1e-3)
    ),
    "quantile clip, nadam": lambda: optax.chain(lo.clip_by_norm_quantile(), lo.nadam(1e-3)),
    "optax clip, optax nadam": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.nadam(1e-3)
    ),
    "clip, optax nadam": lambda: optax.chain(lo.clip_by_global_norm(1.0), optax.nadam(1e-3)),
    "guard of clip, nadam": lambda: lo.guard(
        optax.chain(lo.clip_by_global_norm(1.0), lo.nadam(1e-3))
    ),
}


def compile_step(tx, params, gradients):
    """One step, its state donated; and the state before it."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.tree.map(jnp.copy, params), tx.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, gradients).compile()
    return compiled, *compiled(params, state, gradients)


def measure(repeats: int = 21) -> dict[str, np.ndarray]:
    """Seconds of each program, in turns."""
    rng = np.random.default_rng(0)
    params = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in SHAPES.items()}
    gradients = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in SHAPES.items()}
    programs = {n: compile_step(make(), params, gradients) for n, make in PROGRAMS.items()}
    seconds = {name: [] for name in programs}
    for _ in range(repeats):
        for name, (step, params, state) in programs.items():
            began = time.perf_counter()
            params, state = jax.block_until_ready(step(params, state, gradients))
            seconds[name].append(time.perf_counter() - began)
            programs[name] = step, params, state
    return {name: np.array(times) for name, times in seconds.items()}


if __name__ == "__main__":
    count = sum(int(np.prod(shape)) for shape in SHAPES.values())
    print(
        f"{count:,} parameters, JAX {jax.__version__}, Optax {optax.__version__}, {jax.devices()}"
    )
    times = measure()
    base = np.median(times["optax clip, nadam"])
    for name, taken in times.items():
        low, middle, high = 1e3 * np.quantile(taken, [0.25, 0.5, 0.75])
        print(f"{name:24} {middle:7.1f} ms ({low:.1f} to {high:.1f})  {middle / 1e3 / base:5.2f}")
