"""Training runs of many tasks of a family side by side, each with its own horizon."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learned.learned_rule import learned
from learned.meta_tasks import Family
from learned.tensor_lstm import Theta

FLOOR = 1e-3
"""Added to a loss before its logarithm."""

SHORTEST = 50  # steps of an episode


class Episode(NamedTuple):
    """One training run; every leaf has a leading axis of the tasks where several are kept."""

    key: jax.Array
    instance: Any
    params: Any
    state: Any
    step: jax.Array  # int32
    horizon: jax.Array  # int32
    shows_horizon: jax.Array  # bool; whether the rule knows the horizon
    shows_loss: jax.Array  # bool


def rule(theta: Theta, episode: Episode) -> optax.GradientTransformationExtraArgs:
    """Return the rule for an episode, not guarded: a guard would hide what to learn from."""
    known = jnp.where(episode.shows_horizon, episode.horizon, 0)
    return learned(theta, horizon=known, guard=False, use_loss=episode.shows_loss)


def start_episode(family: Family, theta: Theta, key: jax.Array, longest: Any) -> Episode:
    """Return a new episode, with a horizon between SHORTEST and `longest`, log-uniform."""
    keys = jax.random.split(key, 6)
    instance = family.draw(keys[0])
    params = family.init(keys[1], instance)
    low, high = jnp.log(jnp.float32(SHORTEST)), jnp.log(jnp.asarray(longest, jnp.float32))
    horizon = jnp.exp(low + (high - low) * jax.random.uniform(keys[2])).astype(jnp.int32)
    return Episode(
        key=keys[3],
        instance=instance,
        params=params,
        state=learned(theta).init(params),
        step=jnp.zeros([], jnp.int32),
        horizon=horizon,
        shows_horizon=jax.random.bernoulli(keys[4]),
        shows_loss=jax.random.bernoulli(keys[5]),
    )


def restart_ended(family: Family, theta: Theta, episode: Episode, longest: Any) -> Episode:
    """Return the episode, or a new one if it is over or has become infinite."""
    again, key = jax.random.split(episode.key)
    fresh = start_episode(family, theta, again, longest)
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(episode.params)]
    over = (episode.step >= episode.horizon) | ~jnp.all(jnp.stack(finite))
    kept = episode._replace(key=key)
    return jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, kept)


def train_step(
    family: Family, theta: Theta, episode: Episode
) -> tuple[Episode, jax.Array, jax.Array]:
    """Return the episode after a step, its loss, and a surrogate with the derivative for theta.

    The gradient counts as a constant, so ⟨g, x⟩/(f + FLOOR) has the derivative of log(f + FLOOR)
    with respect to theta through x, and the task is never differentiated twice.
    """
    batch_key, key = jax.random.split(episode.key)
    point = jax.lax.stop_gradient(episode.params)
    loss, gradient = jax.value_and_grad(family.loss)(point, episode.instance, batch_key)
    products = jax.tree.map(lambda g, x: jnp.sum(g * x), gradient, episode.params)
    surrogate = sum(jax.tree.leaves(products)) / (loss + FLOOR)
    updates, state = rule(theta, episode).update(gradient, episode.state, point, value=loss)
    params = optax.apply_updates(episode.params, updates)
    new = episode._replace(key=key, params=params, state=state, step=episode.step + 1)
    return new, loss, surrogate
