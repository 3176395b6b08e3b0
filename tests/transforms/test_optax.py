"""Where Optax has the same rule: equal to rounding in float64, to 1e-4 in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain import plain_for
from rows import gradients_of, params_of, trajectory

import lstm_optax as lo

STEPS = 100
HALF_COSINE = optax.cosine_decay_schedule(0.1, STEPS)


def ours(link, *, learning_rate=HALF_COSINE):
    return optax.chain(link, lo.scale_by_learning_rate(learning_rate))


def squares(direction, second, **eps):
    return ours(lo.precondition(direction, second, **eps))


def debiased(estimator, decay):
    return lo.debias(estimator(decay), decay)


PAIRS = {
    "trace": (lo.momentum(0.9), optax.trace(0.9)),
    "trace, nesterov": (lo.nesterov(lo.momentum(0.9)), optax.trace(0.9, nesterov=True)),
    "ema": (lo.ema(0.9), optax.ema(0.9, debias=False)),
    "ema, debiased": (debiased(lo.ema, 0.9), optax.ema(0.9)),
    "sgd": (lo.sgd(HALF_COSINE), optax.sgd(HALF_COSINE)),
    "sgd, momentum": (ours(lo.momentum(0.9)), optax.sgd(HALF_COSINE, momentum=0.9)),
    "nesterov_sgd": (
        lo.nesterov_sgd(HALF_COSINE, momentum=0.8),
        optax.sgd(HALF_COSINE, momentum=0.8, nesterov=True),
    ),
    "rmsprop": (lo.rmsprop(HALF_COSINE), optax.rmsprop(HALF_COSINE)),
    "rmsprop, ε outside": (
        squares(optax.identity(), lo.mean_square(0.9), eps=1e-8),
        optax.rmsprop(HALF_COSINE, eps_in_sqrt=False),
    ),
    "rmsprop, centered": (
        squares(optax.identity(), lo.centered_mean_square(0.9), eps_root=1e-2),
        optax.rmsprop(HALF_COSINE, centered=True, eps=1e-2),
    ),
    "rmsprop, momentum": (
        optax.chain(
            lo.precondition(optax.identity(), lo.mean_square(0.9), eps_root=1e-8),
            lo.scale_by_learning_rate(HALF_COSINE),
            lo.momentum(0.9),
        ),
        optax.rmsprop(HALF_COSINE, momentum=0.9),
    ),
    "adam": (lo.adam(HALF_COSINE), optax.adam(HALF_COSINE)),
    "nadam": (
        squares(lo.dozat_momentum(0.9, np.inf), debiased(lo.mean_square, 0.999), eps=1e-8),
        optax.nadam(HALF_COSINE),
    ),
    "nadamw, λ": (
        lo.nadamw(HALF_COSINE, weight_decay=0.1),
        optax.chain(
            lo.nadam(1.0),
            optax.scale(-1.0),
            optax.add_decayed_weights(0.1),
            optax.scale_by_learning_rate(HALF_COSINE),
        ),
    ),
    "amsgrad": (
        squares(debiased(lo.ema, 0.9), lo.running_max(debiased(lo.mean_square, 0.999)), eps=1e-8),
        optax.amsgrad(HALF_COSINE),
    ),
    "adagrad": (
        squares(optax.identity(), lo.sum_square(0.1), eps_root=1e-7),
        optax.adagrad(HALF_COSINE),
    ),
    "keep_dtype": (lo.keep_dtype(optax.lion(HALF_COSINE)), optax.lion(HALF_COSINE)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("double", plain_for([True, False], [True]))
def test_equals_optax(name, double):
    with jax.enable_x64(double):
        dtype = jnp.float64 if double else jnp.float32
        params, gradients = params_of(dtype), gradients_of(STEPS, dtype)
        both = jax.jit(lambda p, g: [trajectory(tx, p, g)[0] for tx in PAIRS[name]])
        actual, expected = both(params, gradients)  # one program, since compiling takes longest
        tolerance = 1e-12 if double else 1e-4
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 1e-2)
