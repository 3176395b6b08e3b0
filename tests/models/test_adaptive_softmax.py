"""Adaptive softmax and losses in chunks: equal to the full computation, and to PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import language_model
from compiled import optimized
from flax import nnx

import lstm_optax as lo
from lstm_optax.models import AdaptiveSoftmax, adaptive_softmax, language
from lstm_optax.models.chunked_losses import chunked_losses

H, V, CUTOFFS = 64, 40, (5, 12, 25)
STEPS, ROWS = 6, 4
HIDDEN = np.random.default_rng(0).normal(size=(STEPS, ROWS, H)).astype(np.float32)


def layer(**options) -> AdaptiveSoftmax:
    return AdaptiveSoftmax(H, V, CUTOFFS, **options, rngs=nnx.Rngs(0))


def targets_in(low: int, high: int) -> np.ndarray:
    """Return targets in a range, a third of them padding."""
    rng = np.random.default_rng(1)
    targets = rng.integers(low, high, (STEPS, ROWS))
    return np.where(rng.random((STEPS, ROWS)) < 0.3, -1, targets).astype(np.int32)


def value_and_gradients(loss, module, hidden):
    """Return a loss, and its gradients with respect to the parameters and the hidden state."""
    graphdef, params = nnx.split(module)
    found = jax.jit(
        jax.value_and_grad(lambda p, h: 2.5 * loss(nnx.merge(graphdef, p), h), argnums=(0, 1))
    )(params, hidden)
    return jax.tree.leaves(found)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_probabilities_sum_to_one():
    found = jax.nn.logsumexp(layer()(HIDDEN), axis=-1)
    np.testing.assert_allclose(found, np.zeros((STEPS, ROWS)), atol=1e-6)


@pytest.mark.parametrize("parts", [(0, V), (0, 5), (12, 25), (25, 40)], ids=str)
def test_losses_equal_log_probabilities(monkeypatch, parts):
    """A cluster with more targets than a chunk takes several."""
    monkeypatch.setattr(adaptive_softmax, "LEAST", 5)
    targets = targets_in(*parts)
    found = value_and_gradients(lambda m, h: m.losses(h, targets), layer(), HIDDEN)
    expected = value_and_gradients(lambda m, h: lo.token_losses(m(h), targets)[0], layer(), HIDDEN)
    assert_close(found, expected)


def test_losses_of_padding_alone_are_zero():
    found = value_and_gradients(
        lambda m, h: m.losses(h, np.full((STEPS, ROWS), -1)), layer(), HIDDEN
    )
    assert not any(np.any(leaf) for leaf in found)


def test_target_out_of_range_is_nan():
    targets = targets_in(0, V)
    targets[0, 0] = V
    assert np.isnan(jax.jit(lambda t: layer().losses(HIDDEN, t))(targets))


@pytest.mark.slow
def test_adaptive_softmax_equals_torch(need):
    torch = need("torch")
    ours = layer()
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(H, V, list(CUTOFFS))
    weights = {name: np.array(w) for name, w in lo.interop.module_to_torch(ours).items()}
    theirs.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
    hidden = torch.tensor(HIDDEN.reshape(-1, H), requires_grad=True)
    targets = np.random.default_rng(2).integers(0, V, STEPS * ROWS).astype(np.int32)
    loss = theirs(hidden, torch.tensor(targets, dtype=torch.int64)).loss * targets.size
    (2.5 * loss).backward()
    flat = HIDDEN.reshape(-1, H)
    np.testing.assert_allclose(ours(flat), theirs.log_prob(hidden).detach(), rtol=1e-5, atol=1e-5)
    total, *gradients, d_hidden = value_and_gradients(lambda m, h: m.losses(h, targets), ours, flat)
    np.testing.assert_allclose(total, 2.5 * loss.item(), rtol=1e-5)
    np.testing.assert_allclose(d_hidden, hidden.grad, rtol=1e-4, atol=1e-5)
    found = sorted(np.abs(g).sum() for g in gradients)
    expected = sorted(p.grad.abs().sum().item() for p in theirs.parameters())
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("cutoffs", [(), (0, 5), (5, 5), (7, 5), (5, V), (5, V + 1)])
def test_adaptive_softmax_rejects_cutoffs(cutoffs):
    with pytest.raises(ValueError, match="expected rising whole numbers from 1 to below the voc"):
        AdaptiveSoftmax(H, V, cutoffs, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("size", [1, 5, 24, 99])
def test_chunked_losses_equal_whole(size):
    linear, targets = nnx.Linear(H, V, rngs=nnx.Rngs(0)), targets_in(0, V)
    found = value_and_gradients(
        lambda m, h: chunked_losses(lambda m, h: m(h), m, h, targets, size), linear, HIDDEN
    )
    expected = value_and_gradients(lambda m, h: lo.token_losses(m(h), targets)[0], linear, HIDDEN)
    assert_close(found, expected)


@pytest.mark.parametrize("tied", [False, True])
def test_large_vocabulary_is_chunked(monkeypatch, tied):
    model = language_model(V, rngs=nnx.Rngs(0), in_features=H, hidden_features=H, tied=tied)
    targets = targets_in(0, V)

    def loss(model, hidden):
        return model.losses(hidden, targets)[0]

    expected = value_and_gradients(loss, model, HIDDEN)
    monkeypatch.setattr(language, "MOST_LOGITS", 100)
    monkeypatch.setattr(language, "CHUNK_LOGITS", 3 * V)
    assert_close(value_and_gradients(loss, model, HIDDEN), expected)
    count = model.losses(HIDDEN, targets)[1]
    assert count == (targets >= 0).sum() and count.dtype == jnp.int32


@pytest.mark.parametrize("options", [{}, dict(cutoffs=CUTOFFS)], ids=str)
def test_no_array_has_all_logits(monkeypatch, options):
    """The program holds no array of tokens × vocabulary, or of tokens × a large cluster."""
    monkeypatch.setattr(language, "MOST_LOGITS", 100)
    monkeypatch.setattr(language, "CHUNK_LOGITS", 3 * V)
    monkeypatch.setattr(adaptive_softmax, "LEAST", 1)
    model = language_model(V, rngs=nnx.Rngs(0), in_features=H, hidden_features=H, **options)
    graphdef, params = nnx.split(model)
    targets = targets_in(0, V)

    def loss(params, hidden):
        return nnx.merge(graphdef, params).losses(hidden, targets)[0]

    text = optimized(jax.jit(jax.grad(loss)).lower(params, HIDDEN)).as_text()
    for classes in (V, V - CUTOFFS[-1]):
        for tokens in (f"{STEPS},{ROWS}", f"{STEPS * ROWS}"):
            assert f"[{tokens},{classes}]" not in text
    assert f"[3,{V}]" in text or options


def test_language_model_samples_from_adaptive_softmax(key):
    model = language_model(V, rngs=nnx.Rngs(0), in_features=4, hidden_features=H, cutoffs=CUTOFFS)
    drawn = model.generate(key, jnp.arange(3), 50)
    assert drawn.shape == (50,) and len(np.unique(drawn)) > 10
    assert 0 <= drawn.min() and drawn.max() < V
    with pytest.raises(ValueError, match="tied=True uses the embedding as output layer: leave cut"):
        language_model(
            V, rngs=nnx.Rngs(0), in_features=H, hidden_features=H, tied=True, cutoffs=CUTOFFS
        )
