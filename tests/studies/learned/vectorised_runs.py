"""Train a held-out task with many settings and seeds at once, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned.held_out import HeldOut
from learned.learned_rule import learned
from learned.tensor_lstm import Theta
from lstm_optax import clip_by_global_norm, nadam

CHUNK = 50  # steps in a call of the compiled program

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


class Nadam(NamedTuple):
    """A setting of the baseline, with a clip of the gradient's norm to 1."""

    rate: Any
    cosine: Any  # bool; whether the rate follows a cosine to 0 at the end


class Learned(NamedTuple):
    """A setting of the learned rule, with the same clip."""

    guard: Any  # bool
    knows_horizon: Any  # bool


SETTINGS = tuple(Nadam(rate, cosine) for rate in RATES for cosine in (False, True))
LIBRARY = Nadam(1.6e-2, True)
"""The defaults of `lstm-optax train`."""

LEARNED = Learned(True, True), Learned(False, True), Learned(True, False)


def nadam_rule(steps: int) -> Callable[[Any], optax.GradientTransformationExtraArgs]:
    """Return setting → the baseline for a run of so many steps."""

    def rule(setting: Nadam) -> optax.GradientTransformationExtraArgs:
        def schedule(count):
            share = jnp.minimum(count / jnp.float32(steps), 1)
            return setting.rate * jnp.where(setting.cosine, 0.5 * (1 + jnp.cos(jnp.pi * share)), 1)

        return optax.chain(clip_by_global_norm(1.0), nadam(schedule))

    return rule


def learned_rule(
    theta: Theta, steps: int
) -> Callable[[Any], optax.GradientTransformationExtraArgs]:
    """Return setting → the learned rule for a run of so many steps."""

    def rule(setting: Learned) -> optax.GradientTransformationExtraArgs:
        horizon = jnp.where(setting.knows_horizon, steps, 0)
        return learned(theta, horizon=horizon, guard=setting.guard)

    return rule


def train_all(
    task: HeldOut,
    hidden: int,
    rule: Callable[[Any], optax.GradientTransformationExtraArgs],
    settings: Sequence[NamedTuple],
    seeds: Sequence[int],
    steps: int,
) -> np.ndarray:
    """Return the training losses [settings, seeds, steps]; a seed has the same batches for all.

    Args:
      steps: a multiple of CHUNK.
    """
    stacked = jax.tree.map(lambda *x: jnp.asarray(x), *settings)

    def start(setting, seed):
        params = task.init(jax.random.key(seed), hidden)
        return params, rule(setting).init(params)

    def train(setting, carry, batches):
        def step(carry, batch):
            params, state = carry
            loss, gradient = jax.value_and_grad(task.loss)(params, batch)
            updates, state = rule(setting).update(gradient, state, params, value=loss)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, carry, batches)

    starts = jax.jit(jax.vmap(jax.vmap(start, (None, 0)), (0, None)))
    trains = jax.jit(jax.vmap(jax.vmap(train, (None, 0, 0)), (0, 0, None)), donate_argnums=1)
    carry, losses = starts(stacked, jnp.asarray(seeds)), []
    for first in range(0, steps, CHUNK):
        carry, found = trains(stacked, carry, _stack(task, seeds, first))
        losses.append(np.asarray(found))
    return np.concatenate(losses, axis=-1)


def _stack(task: HeldOut, seeds: Sequence[int], first: int) -> Any:
    """Return CHUNK batches for each seed, [seeds, CHUNK, …]."""
    rows = [[task.batches(first + i, seed) for i in range(CHUNK)] for seed in seeds]
    flat = [jax.tree.map(lambda *x: np.stack(x), *row) for row in rows]
    return jax.tree.map(lambda *x: np.stack(x), *flat)
