"""A recurrent toy problem that compiles fast: a leaky sum of the inputs."""

import jax
import jax.numpy as jnp
import numpy as np

import lstm_optax as lo

WINDOW, ROWS = 4, 2


def loss(params, carry, batch, key):
    """Return the mean squared error of a leaky sum, with noise from the key."""

    def body(carry, xy):
        x, y = xy
        carry = params["leak"] * carry + params["gain"] * x
        return carry, jnp.square(carry - y)

    carry, errors = jax.lax.scan(body, carry, batch)
    noise = jax.random.normal(key, ())
    return jnp.mean(errors) + 1e-3 * noise * params["leak"], carry


def measure(params, carry, batch):
    value, carry = loss(params, carry, batch, jax.random.key(0))
    return (value, jnp.int32(1)), carry


def batches(position: int):
    rng = np.random.default_rng(position)
    x = rng.normal(size=(WINDOW, ROWS)).astype(np.float32)
    return x, np.cumsum(x, axis=0)


def start(optimizer=None) -> tuple:
    """Return a step, and the state before the first step."""
    optimizer = optimizer or OPTIMIZER
    params = {"leak": jnp.float32(0.1), "gain": jnp.float32(0.2)}
    state = lo.init_state(params, optimizer, jnp.zeros(ROWS), jax.random.key(1))
    return (STEP if optimizer is OPTIMIZER else lo.make_step(loss, optimizer)), state


OPTIMIZER = lo.nadam(0.01)
STEP = lo.make_step(loss, OPTIMIZER)
