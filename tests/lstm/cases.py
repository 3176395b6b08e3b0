"""Random inputs of `lstm_sequence`, shared by the tests of its backends."""

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax import LSTMParams, LSTMState, lstm_sequence

T, B, F, H = 5, 3, 2, 4


def draw(shape_of=(T, B, F, H), seed=0):
    """Return float64 parameters, inputs and carry for (time, batch, features, hidden)."""
    time, batch, features, hidden = shape_of
    rng = np.random.default_rng(seed)
    params = LSTMParams(
        rng.normal(size=(features, 4 * hidden)),
        rng.normal(size=(hidden, 4 * hidden)) / np.sqrt(hidden),
        rng.normal(size=4 * hidden),
    )
    carry = LSTMState(rng.normal(size=(batch, hidden)), rng.normal(size=(batch, hidden)))
    return params, rng.normal(size=(time, batch, features)), carry


def make_options(lengths, resets, reverse, time=T, batch=B, seed=0):
    """Return the arguments `seq_lengths`, `resets` and `reverse`, each used or not."""
    rng = np.random.default_rng(seed)
    return dict(
        seq_lengths=rng.integers(0, time + 1, batch) if lengths else None,
        resets=rng.random((time, batch)) < 0.4 if resets else None,
        reverse=bool(reverse),
    )


def draw_output_weights(outputs, carry):
    """Return random weights for a scalar loss of all results."""
    rng = np.random.default_rng(9)
    return jax.tree.map(lambda x: rng.normal(size=x.shape), (outputs, carry))


def weighted_gradients(backend, params, x, carry, weights, options):
    """Return the gradients of the weighted sum of the results for params, x and carry."""

    def loss(params, x, carry):
        results = lstm_sequence(params, x, carry, backend=backend, **options)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, r: jnp.sum(w * r), weights, results)))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, x, carry)
