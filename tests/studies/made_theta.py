"""Made-up weights of the learned rule."""

import jax
import jax.numpy as jnp
from learned.tensor_lstm import init_theta


def trained(key):
    """Weights whose heads do something."""
    first, second = jax.random.split(key)
    head = jax.random.normal(second, (16, 3))
    return init_theta(first) | {"head": head, "head_bias": jnp.array([0.5, -0.5, 0.3])}
