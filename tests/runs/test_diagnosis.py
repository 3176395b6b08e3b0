"""Diagnosis of a language model on a batch with a reset and a padded end."""

import jax
import numpy as np
import pytest
from build_models import language_model
from flax import nnx

from lstm_optax import GradientFlow, LanguageModel, token_losses
from lstm_optax.data import Batch
from lstm_optax.runs.diagnosis import make_diagnose

TIME, ROWS, RESET, END = 6, 2, 2, 5


def batch(*, padded: bool) -> Batch:
    """Return six steps with a reset before the third; if padded, the last one is masked."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(5, size=(2, TIME, ROWS))
    resets = np.zeros((TIME, ROWS), bool)
    resets[RESET] = True
    if not padded:
        return Batch(inputs, targets, resets)
    targets[END:] = -1
    return Batch(inputs, targets, resets, np.full(ROWS, END))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    sizes = dict(in_features=3, hidden_features=4, num_layers=2)
    return language_model(5, dropout=0.5, **sizes, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("padded", [pytest.param(False, marks=pytest.mark.slow), True])
def test_diagnosis_matches_gradient_of_loss(model, padded):
    """The gradient of the last step's loss ends at the reset; that of all steps does not."""
    graphdef, params = nnx.split(model)
    given, end = batch(padded=padded), END if padded else TIME
    numbers, arrays = make_diagnose(graphdef, model.lstm.initial_carry(ROWS), given)(params)
    reach, h = np.array(arrays["reach"]), np.array(arrays["h"])
    assert reach.shape == h.shape == (2, end) and np.array(arrays["gates"]).shape == (2, end, 4)
    assert not np.any(reach[:, :RESET]) and np.all(reach[:, RESET:] > 0)
    assert np.all(h > 0)

    def loss(flows):
        logits, _ = model(
            given.inputs[:end], resets=given.resets[:end], probe=flows, deterministic=True
        )
        total, count = token_losses(logits, given.targets[:end])
        return total / count

    flows = jax.grad(loss)(tuple(GradientFlow.zeros(end, ROWS) for _ in range(2)))
    for layer, flow in enumerate(flows):
        np.testing.assert_allclose(h[layer], np.linalg.norm(flow.h, axis=1), rtol=1e-3)
        forget = np.linalg.norm(flow.gates[..., 1])
        np.testing.assert_allclose(numbers[f"layer{layer}.forget.grad_norm"], forget, rtol=1e-4)
