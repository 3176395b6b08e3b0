"""The presets whose source cannot be installed equal their NumPy twins over 1,000 steps."""

import jax
import numpy as np
import optax
import oracles_presets
import pytest
from preset_cases import CASES, Case, distance, ours, problem

from lstm_optax.presets import algoperf, keras, sutskever, torch

INSTALLED = {"torch", "keras"}
STEPS = 1000


@pytest.mark.parametrize("case", [c for c in CASES if c.source not in INSTALLED], ids=str)
def test_equals_its_oracle(case, x64):
    at = problem(STEPS)
    oracle = getattr(oracles_presets, f"{case.source}_{case.name}")
    expected = [
        oracle(p, g, at.rates, **dict(case.options))
        for p, g in zip(at.params, at.gradients, strict=True)
    ]
    error = distance(ours(case, at), expected)
    print(f"{case}: {error:.1e}")
    assert error < 1e-12


def test_sutskever_eval_params_equal_theta(x64):
    at = problem(STEPS)
    case = Case("sutskever", "nesterov_momentum", (("mu_max", 0.9),))
    states = []
    stored = [leaf[-1] for leaf in ours(case, at, states)]
    theta = sutskever.eval_params(states[0], stored, 0.9)
    for mine, p, g in zip(theta, at.params, at.gradients, strict=True):
        path = oracles_presets.sutskever_nesterov_momentum(p, g, at.rates, 0.9, at="theta")
        assert not np.allclose(path[-1], stored[0].flat[1])
        np.testing.assert_allclose(mine, path[-1], rtol=1e-11)


def test_momentum_may_be_a_schedule(x64):
    at = problem(20)
    fixed = Case("sutskever", "classical_momentum", (("mu_max", lambda count: 0.9),))
    plain = Case("keras", "SGD", (("momentum", 0.9),))
    assert distance(ours(fixed, at), ours(plain, at)) < 1e-14


@pytest.mark.parametrize("norm", [0.5, 1.0, 2.0])
def test_algoperf_clip_equals_formula(norm, x64):
    g = {"a": np.full((2, 2), norm / 2)}
    clipped = algoperf.clip_gradients(1.0).update(g, optax.EmptyState(), None)[0]
    np.testing.assert_allclose(clipped["a"], g["a"] * min(1, 1 / (norm + 1e-6)), rtol=1e-12)


def test_algoperf_decays_only_masked_leaves():
    params = {"w": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    tx = algoperf.nadamw(1.0, weight_decay=0.5, weight_decay_mask={"w": True, "b": False})
    zero = jax.tree.map(np.zeros_like, params)
    moved = tx.update(zero, tx.init(params), params)[0]
    np.testing.assert_allclose(moved["w"], -0.5)
    np.testing.assert_allclose(moved["b"], 0)


def test_two_clips_of_keras_are_rejected():
    with pytest.raises(ValueError, match="clipnorm, clipvalue"):
        keras.SGD(clipnorm=1.0, clipvalue=1.0)


def test_sutskever_eval_params_reject_other_states():
    with pytest.raises(ValueError, match="0 velocities"):
        sutskever.eval_params((), 1.0)


@pytest.mark.parametrize("build", [torch.ASGD, lambda: keras.SGD(weight_decay=0.1)])
def test_presets_require_parameters(build):
    tx, g = build(), np.ones(2, np.float32)
    with pytest.raises(ValueError, match="params"):
        tx.update(g, tx.init(g))
