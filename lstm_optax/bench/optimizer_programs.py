"""The programs of an optimizer row: one update of parameters that are there, in place."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.bench.config import FLOOR, OURS
from lstm_optax.bench.lower_bounds import traffic_floor
from lstm_optax.bench.programs import Program, compile_ahead
from lstm_optax.bench.torch_train import torch_update
from lstm_optax.bench.workloads import OptimizerRow
from lstm_optax.optimizers import OPTIMIZERS
from lstm_optax.transforms import clip_by_global_norm

CLIP, LEARNING_RATE = 1.0, 1e-3


def optimizer_program(name: str, row: OptimizerRow, measure: str, steps: int, seed: int) -> Program:
    """Return the program of a contender: clip, rule, and the update of donated parameters."""
    del measure, steps  # there is but one
    if name == FLOOR:
        return traffic_floor(row)
    rng = np.random.default_rng(seed)
    params, grads = ([_normal(rng, shape) for shape in row.leaves] for _ in range(2))
    if name == "torch":
        return torch_update(params, grads, row.rule, LEARNING_RATE, CLIP)
    if name == OURS:
        chain = optax.chain(clip_by_global_norm(CLIP), OPTIMIZERS[row.rule](LEARNING_RATE))
    else:
        rule = getattr(optax, row.rule)(LEARNING_RATE)
        chain = optax.chain(optax.clip_by_global_norm(CLIP), rule)
    return _update(chain, params, grads)


def _update(optimizer: optax.GradientTransformation, params: Any, grads: Any) -> Program:
    def step(held, grads):
        params, state = held
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    arrays, grads = (jax.tree.map(jnp.array, tree) for tree in (params, grads))
    first = (arrays, optimizer.init(arrays))
    compiled, seconds, memory = compile_ahead(jax.jit(step, donate_argnums=0), first, grads)
    held = [first]

    def call():
        held[0] = jax.block_until_ready(compiled(held[0], grads))
        return held[0]

    def values(result: Any):
        after, state = result
        moved = [np.asarray(a, np.float64) - p for a, p in zip(after, params, strict=True)]
        mu = optax.tree_utils.tree_get(state, "mu")  # Adam's step alone would not show the clip
        moments = [np.asarray(m, np.float64) for m in jax.tree.leaves(mu)]
        return {str(i): change for i, change in enumerate([*moved, *moments])}

    return Program(call, values, compile_seconds=seconds, temp_bytes=memory)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)
