"""Stage 1 of the meta-training: truncated back-propagation through the steps of the rule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned.episodes import Episode, restart_ended, start_episode, train_step
from learned.meta_tasks import Family
from learned.tensor_lstm import Theta

WINDOW = 20  # steps
TASKS = 8  # of a family at a time


def start_episodes(family: Family, theta: Theta, key: jax.Array, longest: int) -> Episode:
    """Return TASKS episodes."""
    start = jax.jit(jax.vmap(partial(start_episode, family, theta, longest=longest)))
    return start(jax.random.split(key, TASKS))


def make_window(family: Family, steps: int = WINDOW) -> Callable[..., Any]:
    """Return (theta, episodes, longest) → derivative, episodes, losses [tasks, steps].

    The derivative is that of the mean logarithm of the loss over the window, with the gradients of
    the task as constants. That of each task is clipped to a norm of 1, and is 0 if it is not
    finite.
    """

    def objective(theta: Theta, episode: Episode) -> tuple[jax.Array, Any]:
        def step(episode, _):
            episode, loss, surrogate = train_step(family, theta, episode)
            return episode, (loss, surrogate)

        episode, (losses, surrogates) = jax.lax.scan(step, episode, length=steps)
        return jnp.mean(surrogates), (episode, losses)

    def of_task(theta, episode, longest):
        episode = restart_ended(family, theta, episode, longest)
        derivative, (episode, losses) = jax.grad(objective, has_aux=True)(theta, episode)
        return clip_or_drop(derivative), episode, losses

    @jax.jit
    def window(theta, episodes, longest):
        derivatives, episodes, losses = jax.vmap(of_task, (None, 0, None))(theta, episodes, longest)
        return jax.tree.map(lambda d: jnp.mean(d, axis=0), derivatives), episodes, losses

    return window


def clip_or_drop(derivative: Theta, bound: float = 1.0) -> Theta:
    """Return the derivative with a norm of at most `bound`; zeros if it is not finite."""
    norm = optax.tree.norm(derivative)
    good = jnp.isfinite(norm)
    factor = jnp.where(good, jnp.minimum(1, bound / jnp.maximum(norm, 1e-12)), 0)
    return jax.tree.map(lambda d: factor * jnp.where(good, d, 0), derivative)
