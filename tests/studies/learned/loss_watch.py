"""What the learned rule remembers of the loss: features, and when it has become too high."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FAST, SLOW = 0.9, 0.99
WAIT = 20
"""Steps before the watch may object, and steps in a row that it needs for it."""

SIGMAS, SHARE = 4.0, 0.1


class LossWatch(NamedTuple):
    """Averages of the loss; scalars."""

    count: jax.Array  # int32; losses seen
    first: jax.Array  # float32; mean of the first ten losses
    fast: jax.Array  # float32; average with decay FAST
    slow: jax.Array  # float32; average with decay SLOW
    square: jax.Array  # float32; average of the squared distance from `fast`
    best: jax.Array  # float32; lowest `slow`, infinite before WAIT losses
    best_sigma: jax.Array  # float32; standard deviation at that step
    in_a_row: jax.Array  # int32; consecutive steps on which the loss was too high


def start_watch() -> LossWatch:
    """Return the watch before the first loss; distinct arrays, because they may be donated."""
    return LossWatch(
        count=jnp.zeros([], jnp.int32),
        first=jnp.zeros([], jnp.float32),
        fast=jnp.zeros([], jnp.float32),
        slow=jnp.zeros([], jnp.float32),
        square=jnp.zeros([], jnp.float32),
        best=jnp.full([], jnp.inf, jnp.float32),
        best_sigma=jnp.zeros([], jnp.float32),
        in_a_row=jnp.zeros([], jnp.int32),
    )


def watch(state: LossWatch, loss: Any) -> LossWatch:
    """Return the watch after a finite loss.

    A loss counts as too high if the fast average is above

        best + SIGMAS · σ(at the best) + SHARE · (first − best),

    so the verdict does not change if the loss is scaled or shifted.
    """
    x = jnp.asarray(loss, jnp.float32)
    count = state.count + 1
    n = count.astype(jnp.float32)

    def average(old, new, decay):  # a plain mean at first
        weight = jnp.maximum(1 - decay, 1 / n)
        return old + weight * (new - old)

    first = jnp.where(count <= 10, state.first + (x - state.first) / n, state.first)
    fast, slow = average(state.fast, x, FAST), average(state.slow, x, SLOW)
    square = average(state.square, jnp.square(x - fast), SLOW)
    ripe = count >= WAIT
    better = ripe & (slow < state.best)
    best = jnp.where(better, slow, state.best)
    sigma = jnp.where(better, jnp.sqrt(square), state.best_sigma)
    bound = best + SIGMAS * sigma + SHARE * jnp.maximum(first - best, 0)
    high = ripe & (fast > bound)
    in_a_row = jnp.where(high, state.in_a_row + 1, 0)
    return LossWatch(count, first, fast, slow, square, best, sigma, in_a_row)


def too_high(state: LossWatch) -> jax.Array:
    """Return whether the loss has been too high for WAIT steps in a row."""
    return state.in_a_row >= WAIT


def loss_features(state: LossWatch, known: jax.Array) -> Float[Array, " 4"]:
    """Return the features of the loss, zeros if it is unknown."""
    known = known & (state.count > 0)
    sigma = jnp.sqrt(state.square) + 1e-6 * jnp.abs(state.fast) + 1e-30
    best = jnp.where(jnp.isfinite(state.best), state.best, state.slow)
    progress = jnp.log((jnp.abs(state.fast) + 1e-30) / (jnp.abs(state.first) + 1e-30))
    features = [
        jnp.float32(1),
        jnp.tanh((state.fast - state.slow) / sigma),
        jnp.tanh(0.5 * (state.fast - best) / sigma),
        jnp.clip(0.2 * progress, -2, 2),
    ]
    return jnp.where(known, jnp.stack(features), jnp.zeros(4))
