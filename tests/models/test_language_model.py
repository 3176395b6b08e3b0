"""The language model: shapes, tying, dropout, sampling, loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import language_model
from compiled import ROUNDING
from flax import nnx

import lstm_optax as lo
from lstm_optax import LSTM, CotangentClip, LanguageModel, token_losses
from lstm_optax.lstm import Lookup

TOKENS = np.array([[1, 2], [3, 4], [0, 1]])


def make(**options) -> LanguageModel:
    sizes = dict(in_features=6, hidden_features=8)
    return language_model(5, **(sizes | options), rngs=nnx.Rngs(0))


def test_logits_and_carry():
    model = make(num_layers=2)
    logits, carry = model(TOKENS)
    assert logits.shape == (3, 2, 5) and len(carry) == 2
    first, between = model(TOKENS[:1])
    second, _ = model(TOKENS[1:], between)
    np.testing.assert_allclose(np.concatenate([first, second]), logits, rtol=1e-5, atol=1e-6)


def test_reset_zeroes_carry():
    model = make()
    _, carry = model(TOKENS)
    resets = np.zeros((3, 2), bool)
    resets[0] = True
    np.testing.assert_allclose(model(TOKENS, carry, resets=resets)[0], model(TOKENS)[0], rtol=1e-6)


def test_tied_embedding_shares_its_kernel():
    free, tied = make(in_features=8), make(in_features=8, tied=True)
    count = lambda m: sum(x.size for x in jax.tree.leaves(nnx.state(m, nnx.Param)))  # noqa: E731
    assert count(free) - count(tied) == 8 * 5 + 5
    assert tied(TOKENS)[0].shape == (3, 2, 5)
    message = r"in_features 6 and hidden_features 8; expected equal .* build LSTM\(8, 8\), or leave"
    with pytest.raises(ValueError, match=message):
        make(tied=True)


@pytest.mark.parametrize("kind", [np.int32, np.int8, np.uint8, np.int64])
def test_token_out_of_range_is_named(kind):
    model = make()
    for bad in (5, 100, -1) if kind != np.uint8 else (5, 255):
        tokens = TOKENS.astype(kind)
        tokens[1, 0] = bad
        with pytest.raises(ValueError, match=f"tokens has {bad}; expected 0 to 4: there are 5 ids"):
            model(tokens)
        with pytest.raises(ValueError, match=f"tokens has {bad}; expected 0 to 4"):
            jax.eval_shape(lambda t=tokens: model.hidden(t))
        with pytest.raises(ValueError, match=f"prompt has {bad}; expected 0 to 4"):
            model.generate(jax.random.key(0), tokens[:, 0], 2)
        logits, _ = jax.jit(lambda t: model(t))(tokens)  # traced, and so not looked at
        assert np.isnan(logits[1:, 0]).all() and np.isfinite(logits[:, 1]).all()
    np.testing.assert_array_equal(model(TOKENS.astype(kind))[0], model(TOKENS)[0])


def test_huge_token_in_list_is_named():
    with pytest.raises(ValueError, match=f"tokens has {2**40}; expected 0 to 4"):
        make()([[1, 2], [3, 2**40]])


def test_four_bit_tokens_are_read():
    np.testing.assert_array_equal(make()(jnp.asarray(TOKENS, jnp.int4))[0], make()(TOKENS)[0])


def test_generate_rejects_wrong_arguments(key):
    model = make()
    for length in (-1, 2.5, True, None, jnp.int32(2)):
        with pytest.raises(ValueError, match="^length is "):
            model.generate(key, TOKENS[:, 0], length)
    for value in (-1.0, float("nan"), "a", None, True, np.ones(1), 1j):
        with pytest.raises(ValueError, match="^temperature is "):
            model.generate(key, TOKENS[:, 0], 2, temperature=value)


@pytest.mark.parametrize("bad", [-1, 5])
def test_fit_names_ids_out_of_range(bad):
    """The loss is traced, so it cannot check the ids of a batch."""
    model = make()
    graphdef, params = nnx.split(model)

    def loss(params, carry, batch, key):
        logits, _ = nnx.merge(graphdef, params)(batch)
        total, count = token_losses(logits, jnp.zeros(batch.shape, int))
        return total / count, carry

    batches = [TOKENS, np.where(TOKENS == 3, bad, TOKENS)]
    state = lo.init_state(params, lo.sgd(0.1), (), jax.random.key(0))
    step = lo.make_step(loss, lo.sgd(0.1))
    with pytest.raises(lo.NonFiniteError, match="step 2 .* target out of range can cause"):
        lo.fit(step, state, lambda p: batches[p % 2], steps=2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m(TOKENS[0]), r"tokens has shape \(2,\); expected two axes: time, batch"),
        (lambda m: m(TOKENS.astype(np.float32)), "tokens is float32; expected integers"),
        (lambda m: m.generate(jax.random.key(0), TOKENS, 2), r"prompt has shape \(3, 2\); expec"),
        (
            lambda m: m(TOKENS, resets=np.ones((2, 3), bool)),
            r"resets has shape \(2, 3\); expected \(3, 2\): laid out as tokens; tokens, of shape "
            r"\(3, 2\), is read as \[time, batch\]",
        ),
        (lambda m: m(TOKENS, m.lstm.initial_carry(3)), r"carry\[0\].h .* tokens, of shape"),
        (lambda m: m(TOKENS, m.lstm.initial_carry(2)[0]), "carry is a LSTMState of 2; expected a"),
        (lambda m: m(TOKENS, seq_lengths=np.ones(3, int)), r"seq_lengths .* tokens, of shape"),
    ],
)
def test_errors_name_arguments_of_call(call, message):
    with pytest.raises(ValueError, match=message):
        call(make())


def test_dropout_needs_rngs():
    rngs = nnx.Rngs(params=0)
    model = LanguageModel(5, LSTM(6, 8, rngs=rngs), dropout=0.5, rngs=rngs)
    plain = model(TOKENS, deterministic=True)[0]
    dropped = model(TOKENS, rngs=nnx.Rngs(dropout=1))[0]
    assert not np.allclose(plain, dropped)
    again = model(TOKENS, rngs=nnx.Rngs(dropout=1), deterministic=True)[0]
    np.testing.assert_array_equal(plain, again)
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        model(TOKENS)


def test_logits_of_bfloat16_products_are_float32():
    assert make(dtype=jnp.bfloat16)(TOKENS)[0].dtype == jnp.float32


def test_greedy_generation_follows_argmax(key):
    model = make()
    prompt = np.array([1, 2, 3])
    drawn = model.generate(key, prompt, 6, temperature=0.0)
    logits, _ = model(np.concatenate([prompt, drawn])[:, None])
    np.testing.assert_array_equal(drawn, np.argmax(logits[2:-1, 0], axis=-1))


@pytest.mark.slow
def test_sampling_follows_scaled_softmax(key):
    """The first sampled token has the model's distribution at the temperature."""
    model = make()
    probability = jax.nn.softmax(model(np.array([[1]]))[0][-1, 0] / 0.5)
    draw = jax.vmap(lambda k: model.generate(k, np.array([1]), 1, temperature=0.5)[0])
    drawn = jax.jit(draw)(jax.random.split(key, 4000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 4000, probability, atol=0.03)
    with pytest.raises(ValueError, match="the prompt is empty"):
        model.generate(key, np.array([], int), 1)


def test_token_losses_skip_padding():
    logits = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
    targets = np.array([[1, -1], [4, 0]])
    total, count = token_losses(logits, targets)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -(log_p[0, 0, 1] + log_p[1, 0, 4] + log_p[1, 1, 0])
    assert count == 3 and total == pytest.approx(expected, rel=1e-5)


def test_empty_vocabulary_is_named():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="vocabulary is 0"):
        LanguageModel(0, LSTM(6, 8, rngs=rngs), rngs=rngs)


def test_logits_read_dropped_outputs():
    model = make(dropout=0.5, num_layers=2)
    raw, dropped, carry = model.hidden(TOKENS, rngs=nnx.Rngs(dropout=1))
    logits, same_carry = model(TOKENS, rngs=nnx.Rngs(dropout=1))
    np.testing.assert_array_equal(model.logits(dropped), logits)
    chex.assert_trees_all_equal(carry, same_carry)
    mask = np.asarray(dropped != 0)
    np.testing.assert_allclose(dropped, np.where(mask, raw * 2, 0), rtol=1e-6)
    assert 0 < mask.mean() < 1


def input_of_lstm(monkeypatch, model, tokens, **options):
    """Return the input that the LSTM of a model receives for these tokens."""
    seen = []

    def spy(self, x, carry=None, **rest):
        seen.append(x.rows() if isinstance(x, Lookup) else x)
        return call(self, x, carry, **rest)

    call = LSTM.__call__
    with monkeypatch.context() as patch:
        patch.setattr(LSTM, "__call__", spy)
        model(tokens, **options)
    return seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_embedding_dropout_drops_whole_tokens(monkeypatch, tied):
    rngs = nnx.Rngs(params=0)
    lstm = LSTM(8, 8, rngs=rngs)
    model = LanguageModel(400, lstm, embedding_dropout=0.25, tied=tied, rngs=rngs)
    tokens = np.stack([np.arange(400), np.arange(400)[::-1]], 1)
    table = model.embedding.embedding[...]
    x = input_of_lstm(monkeypatch, model, tokens, rngs=nnx.Rngs(dropout=1))
    np.testing.assert_array_equal(x[:, 0], x[::-1, 1])  # a token is dropped at all positions
    kept = np.any(x[:, 0] != 0, -1)
    np.testing.assert_allclose(x[:, 0], np.where(kept[:, None], table / 0.75, 0), rtol=1e-6)
    assert kept.mean() == pytest.approx(0.75, abs=0.07)  # 400 tokens: σ = .022
    plain = input_of_lstm(monkeypatch, model, tokens, deterministic=True)
    np.testing.assert_array_equal(plain[:, 0], table)
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        model(tokens)
    _, dropped, _ = model.hidden(tokens, rngs=nnx.Rngs(dropout=1))
    if tied:  # the output layer uses all vectors
        np.testing.assert_allclose(model.logits(dropped), dropped @ table.T, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_locked_dropout_holds_over_steps():
    model = make(dropout=0.5, locked_dropout=True, hidden_features=64, in_features=64)
    raw, dropped, _ = model.hidden(np.zeros((6, 3), int), rngs=nnx.Rngs(dropout=1))
    mask = np.asarray(dropped != 0)
    assert (mask == mask[0]).all() and not (mask == mask[:, :1]).all()
    np.testing.assert_allclose(dropped, np.where(mask, raw * 2, 0), rtol=1e-6)


def test_lengths_freeze_carry():
    model = make()
    _, carry = model(TOKENS, seq_lengths=np.array([3, 1]))
    _, alone = model(TOKENS[:1, 1:])
    np.testing.assert_allclose(carry[0].c[1:], alone[0].c, rtol=max(1e-6, ROUNDING))


def test_cotangent_clip_acts_in_layer():
    """Bounds of 0 on the gates stop all gradients below the output layer; the logits stay."""
    model, clipped = make(), make(cotangent_clip=CotangentClip(gates=0.0))
    np.testing.assert_array_equal(model(TOKENS)[0], clipped(TOKENS)[0])
    gradient = nnx.grad(lambda m: jnp.sum(m(TOKENS)[0] ** 2))(clipped)
    assert np.any(gradient.output.kernel[...])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradient.lstm, gradient.embedding)))
    with pytest.raises(ValueError, match="cotangent_clip is 10.0; expected a CotangentClip"):
        make(cotangent_clip=10.0)


def test_rates_of_zero_draw_nothing():
    plain = make(num_layers=2)
    zero = make(num_layers=2, weight_dropout=0.0, embedding_dropout=0.0)
    programs = [str(jax.make_jaxpr(lambda x, m=m: m(x))(TOKENS)) for m in (plain, zero)]
    assert programs[0] == programs[1] and "random" not in programs[0]


@pytest.mark.parametrize("name", ["dropout", "embedding_dropout", "weight_dropout"])
def test_rate_out_of_range_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} is 1.5, but must be a number in"):
        make(**{name: 1.5})
