"""Momentum in DeepOBS's `tolstoi_char_rnn`, by two other readings of its source."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.optimizers import nesterov_sgd
from lstm_optax.reproductions.char_rnn import OPTIMIZERS, plan_of
from lstm_optax.reproductions.char_rnn import measure as measure
from lstm_optax.reproductions.plan import Options, Plan

MOMENTUM = 0.99


class LazyState(NamedTuple):
    """State of `lazy_momentum`."""

    velocity: Any


def lazy_momentum(learning_rate: Any) -> optax.GradientTransformation:
    """Return momentum that leaves embedding rows without a gradient alone, as TensorFlow 1 does.

    v ← m v + g, returns −α v, for the rows of the characters in the batch
    """

    def init(params):
        return LazyState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params

        def present(path, g):
            is_table = "embedding" in jax.tree_util.keystr(path)
            return jnp.any(g != 0, axis=-1, keepdims=True) if is_table else jnp.bool_(True)

        seen = jax.tree_util.tree_map_with_path(present, updates)
        velocity = jax.tree.map(
            lambda s, v, g: jnp.where(s, MOMENTUM * v + g, v), seen, state.velocity, updates
        )
        steps = jax.tree.map(lambda s, v: jnp.where(s, -learning_rate * v, 0), seen, velocity)
        return steps, LazyState(velocity)

    return optax.GradientTransformation(init, update)


def nesterov(learning_rate: Any) -> optax.GradientTransformation:
    """Return Nesterov's momentum."""
    return nesterov_sgd(learning_rate, momentum=MOMENTUM)


READINGS = {"Momentum, Nesterov": nesterov, "Momentum, lazy embedding rows": lazy_momentum}
"""The rows."""


def make_plan(options: Options) -> Plan:
    """Return the trials: each reading with each seed, at the rate of the momentum there."""
    rate = OPTIMIZERS["Momentum"][2]
    optimizers = {row: (rule, {}, rate) for row, rule in READINGS.items()}
    return plan_of(options, optimizers, {"momentum": MOMENTUM})
