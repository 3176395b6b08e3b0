"""Stage 2 of the meta-training: antithetic evolution strategies on whole runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from learned.episodes import FLOOR, Episode, start_episode, train_step
from learned.meta_tasks import Family
from learned.tensor_lstm import Theta
from lstm_optax import clip_by_global_norm

SIGMA = 0.1
PAIRS = 16
LARGEST_DIFFERENCE = 0.5
HEADS = ("head", "head_bias")
"""The weights that this stage changes; so few numbers need few pairs."""


def run_losses(family: Family, theta: Theta, episode: Episode, steps: int) -> jax.Array:
    """Return the losses [steps] of a whole run."""

    def step(episode, _):
        episode, loss, _ = train_step(family, theta, episode)
        return episode, loss

    return jax.lax.scan(step, episode, length=steps)[1]


def final_log_loss(losses: jax.Array, horizon: Any) -> jax.Array:
    """Return the mean log(f + FLOOR) over the last tenth of the horizon.

    It is at most 1 above that of the first ten steps, also where it is not finite.
    """
    logs = jnp.log(losses + FLOOR)
    worst = jnp.mean(logs[:10]) + 1
    t = jnp.arange(len(losses))
    counts = (t >= horizon - horizon // 10) & (t < horizon)
    last = jnp.sum(jnp.where(counts, logs, 0)) / jnp.sum(counts)
    return jnp.where(jnp.isfinite(last), jnp.minimum(last, worst), worst)


def make_evolution(family: Family, steps: int) -> Callable[[Theta, jax.Array], Any]:
    """Return (theta, key) → estimated derivative of the final log loss, mean final log loss.

    Both runs of a pair have the same task and batches, and opposite changes of the heads; a change
    stays the same for the whole run.
    """

    def run(theta: Theta, heads: Theta, key: jax.Array) -> jax.Array:
        theta = theta | heads
        episode = start_episode(family, theta, key, steps)
        episode = episode._replace(horizon=jnp.int32(steps))
        return final_log_loss(run_losses(family, theta, episode, steps), steps)

    @jax.jit
    def estimate(theta, key):
        noise_key, run_key = jax.random.split(key)
        heads = {name: theta[name] for name in HEADS}
        noise = {
            name: jax.random.normal(k, (PAIRS, *heads[name].shape))
            for k, name in zip(jax.random.split(noise_key, len(HEADS)), HEADS, strict=True)
        }
        both = jax.tree.map(lambda x, e: x[None] + SIGMA * jnp.concatenate([e, -e]), heads, noise)
        keys = jax.random.split(run_key, PAIRS)
        finals = jax.vmap(run, (None, 0, 0))(theta, both, jnp.concatenate([keys, keys]))
        plus, minus = finals[:PAIRS], finals[PAIRS:]
        difference = jnp.clip(plus - minus, -LARGEST_DIFFERENCE, LARGEST_DIFFERENCE)
        slopes = jax.tree.map(
            lambda e: jnp.tensordot(difference, e, axes=1) / (2 * SIGMA * PAIRS), noise
        )
        return slopes, jnp.mean(finals)

    return estimate


def make_score(families: dict[str, Family], steps: tuple[int, ...], tasks: int = 8) -> Any:
    """Return theta → final log losses by family and length, on fixed runs that know the horizon."""

    def of_family(family):
        @jax.jit
        def score(theta):
            def run(key, horizon):
                episode = start_episode(family, theta, key, max(steps))
                yes = jnp.bool_(True)
                episode = episode._replace(horizon=horizon, shows_horizon=yes, shows_loss=yes)
                losses = run_losses(family, theta, episode, max(steps))
                return final_log_loss(losses, horizon)

            keys = jax.random.split(jax.random.key(17), tasks)
            return jnp.mean(jax.vmap(jax.vmap(run, (0, None)), (None, 0))(keys, lengths), axis=1)

        return score

    lengths = jnp.asarray(steps, jnp.int32)
    programs = {name: of_family(family) for name, family in families.items()}

    def scores(theta: Theta) -> dict[str, float]:
        found = {name: program(theta) for name, program in programs.items()}
        return {
            f"{name}, {length} steps": float(found[name][i])
            for name in programs
            for i, length in enumerate(steps)
        }

    return scores


def adam(rate: Any) -> optax.GradientTransformation:
    """Return the outer optimizer of both stages."""
    return optax.chain(clip_by_global_norm(1.0), optax.adam(rate))
