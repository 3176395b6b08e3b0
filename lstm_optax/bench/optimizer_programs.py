"""The programs of an optimizer row: one update of existing parameters, in place."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.bench.config import LOWER_BOUND, OURS
from lstm_optax.bench.lower_bounds import traffic_bound
from lstm_optax.bench.programs import Program, compile_ahead
from lstm_optax.bench.torch_train import torch_update
from lstm_optax.bench.workloads import OptimizerRow
from lstm_optax.optimizers import OPTIMIZERS
from lstm_optax.transforms import clip_by_global_norm

CLIP, LEARNING_RATE = 1.0, 1e-3


def optimizer_program(name: str, row: OptimizerRow, measure: str, steps: int, seed: int) -> Program:
    """Return the program of a contender: clip, update rule, new parameters in donated memory."""
    del measure, steps  # an optimizer row has one measure, of one step
    if name == LOWER_BOUND:
        return traffic_bound(row)
    rng = np.random.default_rng(seed)
    params, grads = ([_draw_normal(rng, shape) for shape in row.leaves] for _ in range(2))
    if name == "torch":
        return torch_update(params, grads, row.rule, LEARNING_RATE, CLIP)
    if name == OURS:
        chain = optax.chain(clip_by_global_norm(CLIP), OPTIMIZERS[row.rule](LEARNING_RATE))
    else:
        rule = getattr(optax, row.rule)(LEARNING_RATE)
        chain = optax.chain(optax.clip_by_global_norm(CLIP), rule)
    return _compile_update(chain, params, grads)


def _compile_update(optimizer: optax.GradientTransformation, params: Any, grads: Any) -> Program:
    def step(state, grads):
        params, opt_state = state
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    arrays, grads = (jax.tree.map(jnp.array, tree) for tree in (params, grads))
    first = (arrays, optimizer.init(arrays))
    compiled, seconds, memory = compile_ahead(jax.jit(step, donate_argnums=0), first, grads)
    state = [first]  # donated to each call

    def call():
        state[0] = jax.block_until_ready(compiled(state[0], grads))
        return state[0]

    def values(result: Any):
        after, opt_state = result
        changes = [np.asarray(a, np.float64) - p for a, p in zip(after, params, strict=True)]
        # Adam's step does not depend on the scale of the gradient: only its moment shows the clip.
        mu = optax.tree_utils.tree_get(opt_state, "mu")
        moments = [np.asarray(m, np.float64) for m in jax.tree.leaves(mu)]
        return {str(i): array for i, array in enumerate([*changes, *moments])}

    return Program(call, values, compile_seconds=seconds, temp_bytes=memory)


def _draw_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)
