"""Measure the size of an update against the size of the weights during training."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from lstm_optax.runs.build import make_extra_args, make_losses
from lstm_optax.runs.job import Job
from lstm_optax.training import TrainState, make_step
from lstm_optax.transforms import global_norm


def make_update_ratio(job: Job) -> Callable[[TrainState], dict[str, float]]:
    """Return a function from a state to ‖θ′ − θ‖ / ‖θ‖ of each matrix of the parameters.

    θ′ are the parameters after the next training step, which is computed for the measurement and
    then discarded. Vectors are left out: a bias may start at 0.
    """
    config = job.config
    loss, _ = make_losses(nnx.graphdef(job.model), ar=config.ar, tar=config.tar)
    extra_args = make_extra_args(config.window if config.vary_window else None)
    step = make_step(loss, job.optimizer, extra_args=extra_args)

    @jax.jit
    def measure(state: TrainState, batch: Any) -> dict[str, jax.Array]:
        after = jax.tree.leaves(step(state, batch)[0].params)
        before = jax.tree_util.tree_leaves_with_path(state.params)
        return {
            _name_of(path): global_norm(new - old) / global_norm(old)
            for (path, old), new in zip(before, after, strict=True)
            if old.ndim > 1
        }

    def ratios(state: TrainState) -> dict[str, float]:
        found = jax.device_get(measure(state, job.corpus.train(int(state.position))))
        return {name: float(f"{ratio:.5g}") for name, ratio in found.items()}

    return ratios


def _name_of(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
