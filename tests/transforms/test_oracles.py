"""Every rule equals its NumPy float64 twin, written from the formulas, over 60 steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

import lstm_optax as lo

STEPS, WIDTH = 60, 5
RATES = 0.1 * (1.5 + np.cos(np.arange(STEPS)))


def gradients() -> np.ndarray:
    """Normal gradients with outliers, a stretch of zeros, and a column that is always zero."""
    rng = np.random.default_rng(7)
    g = rng.normal(size=(STEPS, WIDTH)) * 10.0 ** rng.uniform(-4, 2, size=(STEPS, 1))
    g[20:25] = 0
    g[:, -1] = 0
    return g


def schedule(count):
    return 0.95 - 0.5 / (count + 2.0)


def rates(count):
    return 0.1 * (1.5 + jnp.cos(jnp.asarray(count, float)))


def outputs(tx, params=None) -> np.ndarray:
    tx = optax.with_extra_args_support(tx)
    params = jnp.zeros(WIDTH) if params is None else jnp.asarray(params)

    def body(loop, g):
        params, state = loop
        updates, state = tx.update(g, state, params)
        return (params + updates, state), updates

    return np.asarray(jax.lax.scan(body, (params, tx.init(params)), jnp.asarray(gradients()))[1])


SQUARES = dict(decay=0.9, initial=0.5)
CASES = {
    "momentum": (lo.momentum(0.9), lambda g: oracles.momentum(g, 0.9)),
    "momentum, scheduled": (lo.momentum(schedule), lambda g: oracles.momentum(g, schedule)),
    "ema": (lo.ema(0.9), lambda g: oracles.ema(g, 0.9)),
    "ema, scheduled": (lo.ema(schedule), lambda g: oracles.ema(g, schedule)),
    "damped_momentum": (
        lo.damped_momentum(0.9, 0.3),
        lambda g: oracles.damped_momentum(g, 0.9, 0.3),
    ),
    "corrected_momentum": (
        lo.corrected_momentum(0.9, rates),
        lambda g: oracles.corrected_momentum(g, 0.9, RATES),
    ),
    "mean_square": (lo.mean_square(0.9), lambda g: oracles.mean_square(g, 0.9)),
    "mean_square, started": (
        lo.mean_square(0.9, initial=0.5),
        lambda g: oracles.mean_square(g, **SQUARES),
    ),
    "sum_square": (lo.sum_square(0.5), lambda g: oracles.sum_square(g, 0.5)),
    "running_max": (
        lo.running_max(lo.mean_square(0.5)),
        lambda g: oracles.running_max(oracles.mean_square(g, 0.5)),
    ),
    "debias": (lo.debias(lo.ema(0.99), 0.99), lambda g: oracles.debias(oracles.ema(g, 0.99), 0.99)),
    "nesterov, momentum": (
        lo.nesterov(lo.momentum(0.9)),
        lambda g: oracles.nesterov_momentum(g, 0.9),
    ),
    "nesterov, scheduled": (
        lo.nesterov(lo.momentum(schedule)),
        lambda g: oracles.nesterov_momentum(g, schedule),
    ),
    "nesterov, ema": (lo.nesterov(lo.ema(0.9)), lambda g: oracles.nesterov_ema(g, 0.9)),
    "dozat_momentum, torch": (
        lo.dozat_momentum(0.9, 0.004),
        lambda g: oracles.dozat_momentum(g, 0.9, 0.004),
    ),
    "dozat_momentum, keras": (
        lo.dozat_momentum(0.9, 1.0),
        lambda g: oracles.dozat_momentum(g, 0.9, 1.0),
    ),
    "dozat_momentum, no schedule": (
        lo.dozat_momentum(0.9, math.inf),
        lambda g: oracles.dozat_momentum(g, 0.9, math.inf),
    ),
    "dozat_momentum, paper": (
        lo.dozat_momentum(0.9, 0.004, scheduled_average=True),
        lambda g: oracles.dozat_momentum(g, 0.9, 0.004, scheduled_average=True),
    ),
    "precondition": (
        lo.precondition(lo.ema(0.8), lo.mean_square(0.9), eps=0.1, eps_root=0.01),
        lambda g: oracles.precondition(
            oracles.ema(g, 0.8), oracles.mean_square(g, 0.9), eps=0.1, eps_root=0.01
        ),
    ),
    "precondition, no ε": (
        lo.precondition(optax.identity(), lo.mean_square(0.9)),
        lambda g: oracles.precondition(g, oracles.mean_square(g, 0.9)),
    ),
    "scale_by_learning_rate": (
        lo.scale_by_learning_rate(rates),
        lambda g: oracles.sgd(g, RATES),
    ),
    "keep_dtype": (lo.keep_dtype(optax.scale(0.5)), lambda g: 0.5 * g),
    "sgd": (lo.sgd(rates), lambda g: oracles.sgd(g, RATES)),
    "momentum_sgd": (
        lo.momentum_sgd(rates, momentum=0.8),
        lambda g: oracles.momentum_sgd(g, RATES, 0.8),
    ),
    "nesterov_sgd": (
        lo.nesterov_sgd(rates, momentum=0.8),
        lambda g: oracles.nesterov_sgd(g, RATES, 0.8),
    ),
    "rmsprop": (
        lo.rmsprop(rates, decay=0.95, eps=1e-6),
        lambda g: oracles.rmsprop(g, RATES, 0.95, 1e-6),
    ),
    "rmsprop_momentum": (
        lo.rmsprop_momentum(rates, momentum=0.8, decay=0.95, eps=1e-6),
        lambda g: oracles.rmsprop_momentum(g, RATES, 0.8, 0.95, 1e-6),
    ),
    "adam": (
        lo.adam(rates, b1=0.8, b2=0.99, eps=1e-6),
        lambda g: oracles.adam(g, RATES, 0.8, 0.99, 1e-6),
    ),
    "nadam": (
        lo.nadam(rates, b1=0.8, b2=0.99, eps=1e-6),
        lambda g: oracles.nadam(g, RATES, 0.8, 0.99, 1e-6),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_its_oracle(name, x64):
    tx, oracle = CASES[name]
    np.testing.assert_allclose(outputs(tx), oracle(gradients()), rtol=1e-12, atol=1e-14)


def test_awd_sgd_equals_its_oracle(x64):
    params = np.linspace(-1, 1, WIDTH)
    expected = oracles.awd_sgd(gradients(), RATES, 0.25, 0.3, params)
    tx = lo.awd_sgd(rates, clip=0.25, weight_decay=0.3)
    np.testing.assert_allclose(outputs(tx, params), expected, rtol=1e-11, atol=1e-14)


def test_nadamw_equals_its_oracle(x64):
    params = np.linspace(-1, 1, WIDTH)
    expected = oracles.nadamw(gradients(), RATES, 0.8, 0.99, 1e-6, 0.3, params)
    tx = lo.nadamw(rates, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.3)
    np.testing.assert_allclose(outputs(tx, params), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("initial", [0.0, 1.0])
def test_centered_mean_square_equals_variance(initial, x64):
    """E[g²] − E[g]² cancels where our recurrence does not: compared on the scale of E[g²]."""
    actual = outputs(lo.centered_mean_square(0.9, initial=initial))
    expected = oracles.centered_mean_square(gradients(), 0.9, initial)
    scale = oracles.mean_square(gradients(), 0.9, initial)
    assert np.all(np.abs(actual - expected) <= 1e-13 * scale)
    assert np.all(actual >= 0)


def test_every_rule_has_an_oracle():
    named = {name.split(",")[0] for name in CASES} | {"awd_sgd", "nadamw", "centered_mean_square"}
    named |= {"clip_by_global_norm", "clip_by_norm_quantile", "guard"}  # in files of their own
    named |= {"loss_scaling"}  # in one too
    named |= {"polyak_average", "ema_average", "triggered_average"}  # in one too
    named |= {"by_gate", "gate_muon"}  # compared with splitting by hand
    named |= {"scale_by_rate_factor"}  # a product
    ours = {name for name in lo.OPTIMIZERS if not name.startswith("optax.")}
    rules = {name for name in lo.transforms.__all__ if not name.endswith("State")}
    rules -= {"eval_params", "find_states", "global_norm", "report_validation_loss"}  # no rules
    assert named == rules | ours
