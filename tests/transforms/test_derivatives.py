"""Derivatives at the end of a range, at a zero gradient, and where a square is not a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_derivatives, loss_of
from rows import smooth_problem

import lstm_optax as lo
from lstm_optax.presets import algoperf, keras
from lstm_optax.transforms.muon import muon_direction

EDGES = {  # numbers at the end of their range, where the derivative is the one inside
    "debias at 0": (lambda decay: lo.debias(lo.ema(decay), decay), {"decay": 0.0}),
    "adam at 0": (lo.adam, {"learning_rate": 0.1, "b1": 0.0, "b2": 0.0, "eps": 1e-3}),
    "nadam without ε": (lo.nadam, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 0.0}),
    "no schedule": (lo.dozat_momentum, {"decay": 0.9, "psi": 300.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_derivatives_at_end_of_range(name, x64):
    make, numbers = EDGES[name]
    at_end = [number for number, value in numbers.items() if value == 0]
    params, gradients = smooth_problem(5)
    check_derivatives(make, numbers, params, gradients, one_sided=at_end)


def test_derivative_without_schedule_is_finite(x64):
    numbers = {"decay": jnp.float64(0.9), "psi": jnp.float64(np.inf)}
    found = jax.grad(loss_of(lo.dozat_momentum))(numbers, *smooth_problem(3))
    assert np.isfinite(found["decay"]) and found["psi"] == 0


CLIPS = {
    "global": lambda bound: lo.clip_by_global_norm(bound),
    "quantile": lambda bound: lo.clip_by_norm_quantile(0.3 + 0 * bound, window=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e-160, 1.0, 1e200])
def test_derivatives_of_clips_at_any_scale(name, scale, x64):
    """The first gradient is zero, the others of a scale whose squares may not be numbers."""
    params, gradients = smooth_problem(4, scale)
    gradients = gradients.at[0].set(0)
    check_derivatives(
        lambda bound: CLIPS[name](bound * (scale or 1)), {"bound": 0.4}, 0 * params, gradients
    )


@pytest.mark.slow
def test_skipped_step_leaves_derivatives_finite(x64):
    params, gradients = smooth_problem(5)
    gradients = gradients.at[2, 0].set(jnp.nan).at[3, 1].set(jnp.inf)
    numbers = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3}
    check_derivatives(lambda **numbers: lo.guard(lo.nadam(**numbers)), numbers, params, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.0, 1e-25])
def test_derivatives_of_unseen_entries_are_finite(eps):
    """1/ε² is beyond float32, and so is the slope of the root at 0."""
    params, gradients = (x.astype(jnp.float32) for x in smooth_problem(3))
    loss = loss_of(lambda **numbers: lo.nadam(**numbers, eps=eps))
    numbers = {"learning_rate": jnp.float32(0.1), "b1": jnp.float32(0.9), "b2": jnp.float32(0.99)}
    found = jax.grad(loss, (0, 1, 2))(numbers, params, gradients)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))


@pytest.mark.slow
@pytest.mark.parametrize("still", [0, 1])
def test_derivatives_of_muon_without_gradient(still, x64):
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2))).at[: 3 * still].set(0)
    gradients = gradients.at[0].set(0)
    check_derivatives(muon_direction, {"momentum": 0.9, "rms": 0.2}, jnp.zeros((3, 2)), gradients)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue", "grad_clip"])
def test_derivatives_of_preset_clips_at_zero(clip, x64):
    params, gradients = smooth_problem(4)
    gradients = gradients.at[jnp.array([0, 2])].set(0)
    make = algoperf.clip_gradients if clip == "grad_clip" else keras.SGD
    check_derivatives(make, {clip: 0.4}, 0 * params, gradients)
