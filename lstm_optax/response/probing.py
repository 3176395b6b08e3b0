"""Runs of a transformation: gradients in, steps and sizes of the state out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.response.specimens import Specimen, accepted_specimen

CHUNK = 100  # steps in one call: every run is made of these, so that there is one compilation


class Run(NamedTuple):
    """What came out of a run."""

    steps: np.ndarray  # −update; float64 [steps]
    sizes: np.ndarray  # the largest entry of each array of floats in the state; [steps, arrays]
    state: optax.OptState  # after the last step


class Probe:
    """A transformation on one specimen, which stays where it is.

    Args:
      tx: the transformation.
      unit: what the steps are divided by.
    """

    def __init__(self, tx: optax.GradientTransformation, unit: float):
        self.tx: Any = tx
        self.unit: float = unit
        self.specimen: Specimen = accepted_specimen(tx)
        self._chunk = jax.jit(self._scan)
        self.start: Any = self.start_at(0.0)

    def start_at(self, parameter: float) -> optax.OptState:
        """The state before the first step."""
        return self.tx.init(self.specimen.full(parameter))

    def run(self, state: optax.OptState, gradients: np.ndarray, parameter: float = 0.0) -> Run:
        """Feed one gradient after the other from `state` on; a last chunk is filled with zeros.

        The state that is returned is the one after the filled chunk.
        """
        missing = -len(gradients) % CHUNK
        filled = np.concatenate([gradients, np.zeros(missing)]).astype(np.float32)
        steps, sizes = [], []
        for chunk in filled.reshape(-1, CHUNK):
            state, out = self._chunk(state, chunk, parameter)
            steps.append(out[0])
            sizes.append(out[1])
        steps = 0.0 - np.concatenate(steps, dtype=np.float64)[: len(gradients)]  # no −0 at 0
        sizes = np.concatenate(sizes)
        return Run(steps / self.unit, sizes[: len(gradients)], state)

    def _scan(self, state, gradients, parameter):
        params = self.specimen.full(parameter)

        def body(state, gradient):
            updates, state = self.tx.update(self.specimen.gradient(gradient), state, params)
            sizes = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in _floats(state)]
            step = self.specimen.entry(updates)
            return state, (step, jnp.stack(sizes) if sizes else jnp.zeros(0))

        return jax.lax.scan(body, state, gradients)


def _floats(state: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.size]
