"""A task without a network: a quadratic whose stable learning rates are known."""

import jax.numpy as jnp
import numpy as np

from lstm_optax.tasks import Task


def quadratic(curvatures, *, noise=0.0, **fields):
    """½ Σ λ (θ − b)² from θ = 1, for batches b of normal numbers with a standard deviation."""
    weights = np.asarray(curvatures, np.float32)

    def batches(position, seed):
        normal = np.random.default_rng([seed, position]).normal(size=weights.size)
        return (noise * normal).astype(np.float32)

    def loss(params, carry, batch, key):
        return 0.5 * jnp.sum(weights * (params - batch) ** 2), carry

    def evaluate(params):
        value = 0.5 * jnp.sum(weights * params**2)
        return {"validation": value, "test": value}

    facts = dict(name="quadratic", steps=20, eval_every=10, settings={"noise": noise}) | fields
    return Task(
        init=lambda key: jnp.ones(weights.size),
        loss=loss,
        batches=batches,
        evaluate=evaluate,
        **facts,
    )
