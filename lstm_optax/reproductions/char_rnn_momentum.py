"""Momentum in DeepOBS's `tolstoi_char_rnn`, by other readings of its source."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from lstm_optax.data import Vocabulary
from lstm_optax.optimizers import nesterov_sgd
from lstm_optax.reproductions.char_rnn import OPTIMIZERS, plan_of
from lstm_optax.reproductions.char_rnn import measure as measure
from lstm_optax.reproductions.plan import Options, Plan

MOMENTUM = 0.99
BATCH = 50 * 50  # characters


class LazyState(NamedTuple):
    """State of `lazy_momentum`."""

    velocity: Any


def lazy_momentum(
    learning_rate: Any, occurrences: NDArray[np.float64] | None = None
) -> optax.GradientTransformation:
    """Return momentum that leaves embedding rows without a gradient alone, as TensorFlow 1 does.

    v ← m v + g, returns −α v, for the rows of the characters in the batch

    Args:
      learning_rate: α.
      occurrences: how often each character occurs in a batch. The row of a character then takes
        n = max(occurrences, 1) such steps, each with g/n, instead of one with their sum g.
    """
    times = np.ones(1) if occurrences is None else np.maximum(occurrences, 1)
    times = times[:, None]  # [symbols, 1], or [1, 1] for one step of each row
    decay = MOMENTUM**times
    kept = MOMENTUM * (1 - decay) / (1 - MOMENTUM)  # m + m² + … + mⁿ
    to_velocity = (1 - decay) / (1 - MOMENTUM) / times
    to_step = (times - kept) / (1 - MOMENTUM) / times

    def init(params):
        return LazyState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params

        def moved(path, g, v):
            if "embedding" not in jax.tree_util.keystr(path):
                velocity = MOMENTUM * v + g
                return -learning_rate * velocity, velocity
            seen = jnp.any(g != 0, axis=-1, keepdims=True)
            kept_, decay_, step_, velocity_ = (
                jnp.asarray(factor, g.dtype) for factor in (kept, decay, to_step, to_velocity)
            )
            step = jnp.where(seen, -learning_rate * (kept_ * v + step_ * g), 0)
            return step, jnp.where(seen, decay_ * v + velocity_ * g, v)

        pairs = jax.tree_util.tree_map_with_path(moved, updates, state.velocity)
        steps, velocity = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure((0, 0)), pairs
        )
        return steps, LazyState(velocity)

    return optax.GradientTransformation(init, update)


def nesterov(learning_rate: Any) -> optax.GradientTransformation:
    """Return Nesterov's momentum."""
    return nesterov_sgd(learning_rate, momentum=MOMENTUM)


def make_plan(options: Options) -> Plan:
    """Return the trials: each reading with each seed, at the rates of `OPTIMIZERS`."""
    data = options.data or b""
    text = data.decode("utf-8")
    codes = Vocabulary.of(text).encode(text)
    rules = {
        "Nesterov": nesterov,
        "lazy embedding rows": lazy_momentum,
        "one step per occurrence": partial(
            lazy_momentum, occurrences=BATCH * np.bincount(codes) / len(codes)
        ),
    }
    rate = OPTIMIZERS["Momentum"][2]
    optimizers = {f"Momentum, {name}": (rule, {}, rate) for name, rule in rules.items()}
    line_feeds = {f"{name}, line feeds": OPTIMIZERS[name] for name in ("Momentum", "SGD")}
    facts = {"momentum": MOMENTUM}
    plan = plan_of(options, optimizers, facts)
    other_text = replace(options, data=data.replace(b"\r\n", b"\n"))
    groups = [*plan.groups, *plan_of(other_text, line_feeds, facts).groups]
    return replace(plan, groups=groups)
