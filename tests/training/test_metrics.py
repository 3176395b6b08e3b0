"""Compensated sums, which keep the rounding error of float32, and update ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax.training.metrics import (
    CompensatedSum,
    StepMetrics,
    add_step,
    interval_means,
    zero_sums,
)
from lstm_optax.training.update_ratio import named_ratios, update_ratios

TERM = 0.1


def sums_of_equal_steps(count):
    """Return the sums of `count` equal steps, added up in one compiled loop."""
    flags = [jnp.bool_(False)] * 4
    metrics = StepMetrics(jnp.float32(TERM), jnp.float32(3 * TERM), (), *flags, jnp.int32(0))

    @jax.jit
    def run(sums, count):
        return jax.lax.fori_loop(0, count, lambda i, sums: add_step(sums, metrics), sums)

    return run(zero_sums(), count)


def test_mean_over_long_interval_is_exact():
    for count in (1, 10**6):
        found = interval_means(sums_of_equal_steps(count))
        assert found["train_loss"] == pytest.approx(np.float32(TERM), rel=1e-7)
        assert found["grad_norm"] == pytest.approx(3 * np.float64(np.float32(TERM)), rel=1e-6)


@pytest.mark.slow
def test_mean_over_very_long_interval_is_exact():
    assert interval_means(sums_of_equal_steps(3 * 10**7))["train_loss"] == pytest.approx(
        np.float32(TERM), rel=1e-7
    )


def test_compensated_sum_keeps_small_terms():
    plus = jax.jit(CompensatedSum.plus)
    total = CompensatedSum(jnp.float32(1e8), jnp.float32(0))
    for _ in range(100):
        total = plus(total, jnp.float32(1.0))
    assert total.mean(1.0) == 1e8 + 100
    assert plus(plus(total, jnp.float32(3e38)), jnp.float32(3e38)).mean(1.0) == np.inf
    assert np.isnan(plus(total, jnp.float32(np.nan)).mean(1.0))


def test_update_ratios_are_those_of_matrices():
    """Norms of the update and of the weights before it, in float64; no vectors."""
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "c": rng.normal(size=(2, 2))}
    updates = jax.tree.map(lambda x: rng.normal(scale=1e-3, size=x.shape), params)
    as_float32 = (jax.tree.map(jnp.float32, tree) for tree in (params, updates))
    found = named_ratios(params, np.asarray(update_ratios(*as_float32)))
    norms = {n: np.linalg.norm(updates[n]) / np.linalg.norm(params[n]) for n in "ac"}
    assert found == {f"{n}.update_ratio": pytest.approx(norms[n], rel=1e-3) for n in "ac"}
    assert update_ratios({"b": jnp.ones(3)}, {"b": jnp.ones(3)}).shape == (0,)
