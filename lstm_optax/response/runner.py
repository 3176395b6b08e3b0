"""Runs of a transformation: gradients go in, steps and the sizes of the state come out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.response.measured_params import MeasuredParams, accepted_params

CHUNK = 100  # steps in one call; all runs consist of such chunks, so there is one compilation


class RunResult(NamedTuple):
    """The steps and states of a run."""

    steps: np.ndarray  # −update; float64 [steps]
    sizes: np.ndarray  # the largest entry of each float array in the state; [steps, arrays]
    state: optax.OptState  # after the last step


class OptimizerRunner:
    """Runs a transformation on parameters that never change.

    Args:
      tx: the transformation.
      unit: the number that the steps are divided by.
    """

    def __init__(self, tx: optax.GradientTransformation, unit: float):
        self.tx: Any = tx
        self.unit: float = unit
        self.params: MeasuredParams = accepted_params(tx)
        self._run_chunk = jax.jit(self._scan)
        self.initial_state: Any = self.init(0.0)

    def init(self, parameter: float) -> optax.OptState:
        """Return the state before the first step."""
        return self.tx.init(self.params.full(parameter))

    def run(
        self, state: optax.OptState, gradients: np.ndarray, parameter: float = 0.0
    ) -> RunResult:
        """Run the gradients one after the other, starting from `state`.

        The last chunk is padded with zero gradients; the returned state is the one after the
        padding.
        """
        missing = -len(gradients) % CHUNK
        padded = np.concatenate([gradients, np.zeros(missing)]).astype(np.float32)
        steps, sizes = [], []
        for chunk in padded.reshape(-1, CHUNK):
            state, out = self._run_chunk(state, chunk, parameter)
            steps.append(out[0])
            sizes.append(out[1])
        # 0 − update instead of −update, so that a step of 0 is not −0
        steps = 0.0 - np.concatenate(steps, dtype=np.float64)[: len(gradients)]
        sizes = np.concatenate(sizes)
        return RunResult(steps / self.unit, sizes[: len(gradients)], state)

    def _scan(self, state, gradients, parameter):
        params = self.params.full(parameter)

        def body(state, gradient):
            updates, state = self.tx.update(self.params.gradient(gradient), state, params)
            sizes = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in _float_leaves(state)]
            step = self.params.entry(updates)
            return state, (step, jnp.stack(sizes) if sizes else jnp.zeros(0))

        return jax.lax.scan(body, state, gradients)


def _float_leaves(state: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.size]
