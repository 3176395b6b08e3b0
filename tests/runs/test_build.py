"""Parts of a training: corpus, schedule, optimizer, model and losses."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from plain import plain_for

from lstm_optax import (
    OPTIMIZERS,
    CotangentClip,
    LSTMParams,
    TrainConfig,
    eval_params,
    find_states,
    nadamw,
    report_validation_loss,
)
from lstm_optax.data import Batch, TextError
from lstm_optax.names import DECAYING_OPTIMIZERS
from lstm_optax.runs import OptionError, build
from lstm_optax.runs import corpus as corpus_module
from lstm_optax.transforms import GuardState

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)


@pytest.fixture
def corpus(tmp_path) -> corpus_module.Corpus:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return corpus_of(path)


def corpus_of(path, **values) -> corpus_module.Corpus:
    return corpus_module.corpus_of(config(text=path, **values))


def config(**values) -> TrainConfig:
    return TrainConfig(**(dict(hidden=8, embedding=4, batch=2, window=8) | values))


def test_corpus_covers_whole_text(corpus, tmp_path):
    assert corpus.name == str(tmp_path / "text.txt") and corpus.tokens == len(TEXT)
    assert "".join(corpus.vocabulary.characters) == "".join(sorted(set(TEXT)))
    baselines = corpus.count_ngrams()
    assert baselines.keys() == {"uniform", *(f"{n}-gram" for n in range(1, 6))}
    assert baselines["uniform"] == pytest.approx(math.log(len(set(TEXT))))
    held_out = len(TEXT) // 10
    batches = [corpus.validation(p) for p in range(len(corpus.validation))]
    assert sum((batch.targets >= 0).sum() for batch in batches) == held_out - 1
    assert len(corpus.train) == (len(TEXT) - held_out - 1) // 2 // 8
    first = corpus.vocabulary.decode(corpus.train(0).inputs[:, 0])
    assert first == TEXT[:8]


def test_sha256_depends_on_content_only(corpus, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT)
    assert corpus_of(other).sha256 == corpus.sha256
    other.write_text(TEXT.replace("pig", "gip", 1))
    assert corpus_of(other).sha256 != corpus.sha256


def test_default_text_is_help_topics(monkeypatch):
    monkeypatch.setattr(corpus_module, "topics_text", lambda: TEXT)
    corpus = corpus_of(None)
    assert (corpus.name, corpus.tokens) == ("pydoc_data.topics", len(TEXT))


def test_corpus_rejects_short_text(corpus, tmp_path):
    with pytest.raises(TextError, match="use a smaller `batch` or `window`"):
        corpus_of(tmp_path / "text.txt", window=800)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("course", ["constant", "cosine", "linear"])
def test_schedule_matches_formula(course, warmup):
    schedule = build.make_schedule(
        config(learning_rate=0.5, schedule=course, warmup=warmup, steps=110)
    )
    rest = 110 - warmup
    for step in range(110):
        done = (step - warmup) / rest
        expected = {
            "constant": 1.0,
            "cosine": 0.5 + 0.5 * math.cos(math.pi * done),
            "linear": 1 - done,
        }[course]
        expected = step / warmup if step < warmup else expected
        np.testing.assert_allclose(schedule(step), 0.5 * expected, rtol=1e-5, atol=1e-7)
    end = 0.5 if course == "constant" else 0.0
    np.testing.assert_allclose(schedule(110), end, atol=1e-7)


def test_gradient_is_clipped_before_optimizer():
    params = {"w": jnp.zeros([4])}
    grads = {"w": jnp.array([3.0, 0.0, 4.0, 0.0])}  # of norm 5
    for clip, factor in ((0.0, 1.0), (10.0, 1.0), (1.0, 0.2)):
        sgd = build.make_optimizer(config(optimizer="sgd", clip=clip), lambda step: 0.1)
        updates, _ = sgd.update(grads, sgd.init(params), params)
        np.testing.assert_allclose(updates["w"], -0.1 * factor * grads["w"], rtol=1e-6)


def test_guard_wraps_whole_optimizer():
    params = {"w": jnp.zeros([4])}
    optimizer = build.make_optimizer(config(guard=3), lambda step: 0.1)
    state = optimizer.init(params)
    for _ in range(3):
        _, state = optimizer.update({"w": jnp.full([4], jnp.nan)}, state, params)
    assert bool(state.gave_up) and int(state.skipped) == 3
    assert not find_states(
        build.make_optimizer(config(), lambda step: 0.1).init(params), GuardState
    )


@pytest.mark.parametrize("name", DECAYING_OPTIMIZERS)
def test_weight_decay_shrinks_weights(name):
    params = {"w": jnp.full([3, 4], 2.0)}
    grads = jax.tree.map(jnp.ones_like, params)

    def update(decay):
        optimizer = build.make_optimizer(
            config(optimizer=name, weight_decay=decay), optax.constant_schedule(0.1)
        )
        return optimizer.update(grads, optimizer.init(params), params)[0]["w"]

    per_rate = 1.0 if name == "optax.adafactor" else 0.1  # its decay is unscaled
    np.testing.assert_allclose(update(0.25) - update(0.0), -per_rate * 0.25 * 2.0, rtol=1e-4)


def test_set_values_reach_the_optimizer():
    settings = config(optimizer="nadamw", set=("b1=0.5", "eps=0.1"), weight_decay=0.25, clip=0.0)
    ours = build.make_optimizer(settings, lambda step: 0.1)
    direct = nadamw(0.1, b1=0.5, eps=0.1, weight_decay=0.25)
    params = {"w": jnp.arange(3.0)}
    found, expected = (tx.update(params, tx.init(params), params)[0] for tx in (ours, direct))
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
    plain = nadamw(0.1, weight_decay=0.25)
    default, _ = plain.update(params, plain.init(params), params)
    assert not np.allclose(found["w"], default["w"], rtol=1e-2)


@pytest.mark.parametrize(
    "text, message",
    [
        ("b1=1.5", "^--set b1=1.5: b1 is 1.5, but must be a number in "),
        ("b3=0.5", "^--set b3=0.5: nadam has no hyper-parameter 'b3'; there are b1, b2, eps$"),
    ],
)
def test_bad_set_value_is_option_error(text, message):
    with pytest.raises(OptionError, match=message):
        build.make_optimizer(config(set=(text,)), lambda step: 0.1)


@pytest.mark.parametrize("name", plain_for(OPTIMIZERS, ["awd_sgd", "optax.adafactor"]))
def test_optimizer_follows_schedule(name):
    """Nothing moves at a rate of 0; everything moves at a later rate."""
    optimizer = build.make_optimizer(
        config(optimizer=name), lambda step: jnp.where(step == 0, 0.0, 0.1)
    )
    params = LSTMParams(jnp.ones([3, 8]), jnp.full([2, 8], 2.0), jnp.ones([8]))
    state, grads = optimizer.init(params), jax.tree.map(jnp.ones_like, params)
    still, state = optimizer.update(grads, state, params)
    moved, state = optimizer.update(grads, state, params)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(still))
    assert all(jnp.all(leaf < 0) for leaf in jax.tree.leaves(moved))


@pytest.mark.slow
def test_model_matches_config():
    model = build.make_model(config(layers=2, dtype="bfloat16"), vocabulary=11)
    assert model.embedding.embedding.shape == (11, 4)
    assert model.output.kernel.shape == (8, 11) and not model.tied
    assert len(model.lstm.layers) == 2 and model.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model)))
    assert build.make_model(config(embedding=8, tied=True), vocabulary=11).tied


def test_seed_determines_params_and_key(corpus):
    def state(seed):
        settings = config(seed=seed)
        model = build.make_model(settings, len(corpus.vocabulary))
        return build.make_state(model, optax.sgd(0.1), rows=2, seed=seed)

    chex.assert_trees_all_equal(state(0), state(0))
    assert not jnp.array_equal(state(0).key, state(1).key)
    first, other = (state(seed).params["output"]["kernel"][...] for seed in (0, 1))
    assert not jnp.array_equal(first, other)
    assert int(state(0).step) == int(state(0).position) == 0


def losses_of(corpus, dropout):
    settings = config(dropout=dropout)
    graphdef, params = nnx.split(build.make_model(settings, len(corpus.vocabulary)))
    model = nnx.merge(graphdef, params)
    loss, measure = map(jax.jit, build.make_losses(graphdef))
    return loss, measure, params, model.lstm.initial_carry(2)


def test_loss_equals_measure_without_dropout(corpus, key):
    loss, measure, params, carry = losses_of(corpus, dropout=0.0)
    batch = corpus.train(0)
    value, new_carry = loss(params, carry, batch, key)
    (total, count), same_carry = measure(params, carry, batch)
    np.testing.assert_allclose(value, total / count, rtol=1e-6)
    chex.assert_trees_all_close(new_carry, same_carry)
    assert int(count) == 16 and abs(float(value) - corpus.count_ngrams()["uniform"]) < 0.5


def test_dropout_only_in_training(corpus, key):
    loss, measure, params, carry = losses_of(corpus, dropout=0.5)
    _, plain, same_params, _ = losses_of(corpus, dropout=0.0)
    batch = corpus.train(0)
    one, other = (loss(params, carry, batch, k)[0] for k in jax.random.split(key))
    assert one != other and one == loss(params, carry, batch, jax.random.split(key)[0])[0]
    chex.assert_trees_all_equal(
        measure(params, carry, batch)[0], plain(same_params, carry, batch)[0]
    )


def test_validation_padding_is_masked(corpus):
    _, measure, params, carry = losses_of(corpus, dropout=0.0)
    last = corpus.validation(len(corpus.validation) - 1)
    padded = (last.targets < 0).sum()
    assert padded > 0
    (_, count), _ = measure(params, carry, last)
    assert int(count) == last.targets.size - padded


def test_regularisation_matches_config():
    rates = dict(dropout=0.1, locked_dropout=True, embedding_dropout=0.2, weight_dropout=0.3)
    model = build.make_model(config(layers=2, **rates), vocabulary=11)
    assert (model.dropout.rate, model.dropout.broadcast_dims) == (0.1, (0,))
    assert (model.lstm.dropout.rate, model.lstm.dropout.broadcast_dims) == (0.1, (0,))
    assert (model.embedding_dropout.rate, model.lstm.weight_dropout.rate) == (0.2, 0.3)
    plain = build.make_model(config(dropout=0.1), vocabulary=11)
    assert plain.dropout.broadcast_dims == () and plain.lstm.weight_dropout.rate == 0


def test_clip_gates_reaches_layers():
    assert build.make_model(config(), vocabulary=11).lstm.cotangent_clip is None
    model = build.make_model(config(clip_gates=10.0), vocabulary=11)
    assert model.lstm.cotangent_clip == CotangentClip(gates=10.0)


@pytest.mark.slow
def test_training_loss_includes_ar_and_tar(corpus, key):
    model = build.make_model(config(dropout=0.5), len(corpus.vocabulary))
    graphdef, params = nnx.split(model)
    carry, batch = model.lstm.initial_carry(2), corpus.train(0)
    rngs = nnx.Rngs(dropout=key)
    raw, dropped, _ = model.hidden(batch.inputs, carry, resets=batch.resets, rngs=rngs)
    terms = dict(ar=np.mean(dropped**2), tar=np.mean((raw[1:] - raw[:-1]) ** 2))
    plain, measure = build.make_losses(graphdef)
    value = plain(params, carry, batch, key)[0]
    for name, term in terms.items():
        loss, same = build.make_losses(graphdef, **{name: 3.0})
        found = loss(params, carry, batch, key)[0] - value
        np.testing.assert_allclose(found, 3 * term, rtol=1e-3)
        np.testing.assert_array_equal(
            same(params, carry, batch)[0], measure(params, carry, batch)[0]
        )


@pytest.mark.slow
def test_varying_windows_equal_one_long_window(tmp_path, key):
    """The carry is unchanged after the end of a window, and the padding is masked."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    corpus = corpus_of(path, vary_window=True, seed=3)
    model = build.make_model(config(), len(corpus.vocabulary))
    graphdef, params = nnx.split(model)
    terms = dict(ar=0.5, tar=0.25)
    loss, measure = map(jax.jit, build.make_losses(graphdef, **terms))
    carry, total = model.lstm.initial_carry(2), 0.0
    for p in range(5):
        batch = corpus.train(p)
        raw, dropped, _ = model.hidden(
            batch.inputs, carry, resets=batch.resets, seq_lengths=batch.lengths
        )
        steps = batch.lengths[0]
        value, carry = loss(params, carry, batch, key)
        value -= 0.5 * np.mean(dropped[:steps] ** 2)
        value -= 0.25 * np.mean(np.diff(raw[:steps], axis=0) ** 2)
        total += value * 2 * steps
    end = corpus.train.start(5)
    assert len({corpus.train(p).lengths[0] for p in range(5)}) > 1 and end < 200
    whole = Batch(*corpus.train.rows.read(np.arange(end)), np.zeros((end, 2), bool))
    (expected, count), last = measure(params, model.lstm.initial_carry(2), whole)
    assert count == 2 * end
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    chex.assert_trees_all_close(carry, last, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", plain_for(OPTIMIZERS, ("sgd", "nadam", "awd_sgd")))
def test_window_length_scales_rate(name):
    settings = config(optimizer=name, vary_window=True)
    params = LSTMParams(jnp.ones([3, 8]), jnp.full([2, 8], 2.0), jnp.ones([8]))
    optimizer = optax.with_extra_args_support(build.make_optimizer(settings, lambda step: 0.1))
    grads, state = jax.tree.map(jnp.ones_like, params), optimizer.init(params)
    extra = build.make_extra_args(8)(Batch(*[np.zeros(1)] * 3, np.full(2, 6)))
    assert extra == {"rate_factor": 6 / 8}
    whole = optimizer.update(grads, state, params)[0]
    scaled = optimizer.update(grads, state, params, **extra)[0]
    chex.assert_trees_all_close(scaled, jax.tree.map(lambda u: u * 6 / 8, whole), rtol=1e-6)
    assert build.make_extra_args(None)(None) == {}


def test_awd_sgd_averages_scaled_steps():
    settings = config(optimizer="awd_sgd", vary_window=True, clip=0.0)
    params = {"w": jnp.full([3, 4], 2.0)}
    optimizer = build.make_optimizer(settings, lambda step: 0.1)
    state, grads = optimizer.init(params), jax.tree.map(jnp.ones_like, params)
    for loss in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0):  # the last one is worse: averaging starts
        state = report_validation_loss(state, loss)
    path = []
    for factor in (1.0, 0.5, 0.25):
        updates, state = optimizer.update(grads, state, params, rate_factor=factor)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["w"]))
    average = eval_params(state, params)["w"]
    np.testing.assert_allclose(average, np.mean(path[1:], axis=0), rtol=1e-6)
