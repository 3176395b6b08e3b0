"""The language model: shapes, tying, dropout, sampling, its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_optax import LanguageModel, token_losses

TOKENS = np.array([[1, 2], [3, 4], [0, 1]])


def make(**options) -> LanguageModel:
    sizes = dict(embedding_features=6, hidden_features=8)
    return LanguageModel(5, **(sizes | options), rngs=nnx.Rngs(0))


def test_logits_and_carry():
    model = make(num_layers=2)
    logits, carry = model(TOKENS)
    assert logits.shape == (3, 2, 5) and len(carry) == 2
    first, between = model(TOKENS[:1])
    second, _ = model(TOKENS[1:], between)
    np.testing.assert_allclose(np.concatenate([first, second]), logits, rtol=1e-5, atol=1e-6)


def test_a_reset_forgets():
    model = make()
    _, carry = model(TOKENS)
    resets = np.zeros((3, 2), bool)
    resets[0] = True
    np.testing.assert_allclose(model(TOKENS, carry, resets=resets)[0], model(TOKENS)[0], rtol=1e-6)


def test_tied_embedding_shares_its_kernel():
    free, tied = make(embedding_features=8), make(embedding_features=8, tied=True)
    count = lambda m: sum(x.size for x in jax.tree.leaves(nnx.state(m, nnx.Param)))  # noqa: E731
    assert count(free) - count(tied) == 8 * 5 + 5
    assert tied(TOKENS)[0].shape == (3, 2, 5)
    with pytest.raises(ValueError, match="needs embedding_features equal to hidden_features"):
        make(tied=True)


def test_dropout_needs_rngs():
    model = make(dropout=0.5)
    plain = model(TOKENS, deterministic=True)[0]
    dropped = model(TOKENS, rngs=nnx.Rngs(dropout=1))[0]
    assert not np.allclose(plain, dropped)
    again = model(TOKENS, rngs=nnx.Rngs(dropout=1), deterministic=True)[0]
    np.testing.assert_array_equal(plain, again)
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        model(TOKENS)


def test_logits_are_float32_whatever_the_products():
    assert make(dtype=jnp.bfloat16)(TOKENS)[0].dtype == jnp.float32


def test_greedy_generation_follows_the_argmax(key):
    model = make()
    prompt = np.array([1, 2, 3])
    drawn = model.generate(key, prompt, 6, temperature=0.0)
    tokens = list(prompt)
    for token in drawn:
        logits, _ = model(np.array(tokens)[:, None])
        assert token == np.argmax(logits[-1, 0])
        tokens.append(int(token))


def test_generation_at_temperature_one_follows_the_model(key):
    """The first character drawn has the model's own distribution."""
    model = make()
    probability = jax.nn.softmax(model(np.array([[1]]))[0][-1, 0] / 0.5)
    draw = jax.vmap(lambda k: model.generate(k, np.array([1]), 1, temperature=0.5)[0])
    drawn = jax.jit(draw)(jax.random.split(key, 4000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 4000, probability, atol=0.03)
    with pytest.raises(ValueError, match="the prompt is empty"):
        model.generate(key, np.array([], int), 1)


def test_token_losses_skip_what_is_no_target():
    logits = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
    targets = np.array([[1, -1], [4, 0]])
    total, count = token_losses(logits, targets)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -(log_p[0, 0, 1] + log_p[1, 0, 4] + log_p[1, 1, 0])
    assert count == 3 and total == pytest.approx(expected, rel=1e-5)


def test_an_empty_vocabulary_is_named():
    with pytest.raises(ValueError, match="vocabulary is 0"):
        LanguageModel(0, rngs=nnx.Rngs(0))
