"""`deepobs-char-rnn`: rows of text, initial values, dropout, test loss, records that continue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_data import use_small_data

from lstm_optax.models import token_losses
from lstm_optax.reproductions import REPRODUCTIONS, char_rnn, compare_with_published, reproduce
from lstm_optax.reproductions._reproduce import make_plan

NAME = "deepobs-char-rnn"
HIDDEN, SYMBOLS = 32, 20


@pytest.fixture
def text(tmp_path, monkeypatch):
    return use_small_data(tmp_path / "text.txt", monkeypatch, NAME).decode()


def test_rows_are_those_of_deepobs():
    codes = np.arange(67)
    batch, window = 4, 5
    count = (len(codes) - 1) // (batch * window)
    inputs = codes[: count * batch * window].reshape(batch, -1)
    targets = codes[1 : count * batch * window + 1].reshape(batch, -1)
    windows = char_rnn.whole_windows(codes, batch, window)
    assert len(windows) == count
    for i, found in enumerate(windows):
        place = slice(i * window, (i + 1) * window)
        np.testing.assert_array_equal(found.inputs, inputs[:, place].T)
        np.testing.assert_array_equal(found.targets, targets[:, place].T)
        assert found.resets[0].all() == (i == 0) and not found.resets[1:].any()


def test_initial_values_are_those_of_tensorflow(key):
    model = char_rnn.make_model(key, SYMBOLS, HIDDEN)
    uniform = {(SYMBOLS, HIDDEN): [model.embedding.embedding], (SYMBOLS,): [model.output.bias]}
    uniform[HIDDEN, SYMBOLS] = [model.output.kernel]
    for layer in model.lstm.layers:
        weights = layer["forward"]
        uniform.setdefault((2 * HIDDEN, 4 * HIDDEN), []).extend(
            [weights.kernel_ih, weights.kernel_hh]
        )
        gates = dict.fromkeys("ifgo", 0.0) | {"f": 1.0}
        biases = np.repeat(list(gates.values()), HIDDEN)
        assert sorted(weights.bias[...].tolist()) == sorted(biases)
    for shape, arrays in uniform.items():
        limit = np.sqrt(6 / (shape[0] + shape[-1]))
        for array in arrays:
            largest = jnp.max(jnp.abs(array[...]))
            assert 0.8 * limit < largest <= limit
    first, second = (layer["forward"] for layer in model.lstm.layers)
    assert not jnp.array_equal(first.kernel_ih[...], second.kernel_ih[...])


def test_dropout_between_layers_is_that_of_two_masks(key):
    model = char_rnn.make_model(key, SYMBOLS, HIDDEN)
    assert model.dropout.rate == 0.2
    assert model.lstm.dropout.rate == pytest.approx(1 - 0.8 * 0.8)


@pytest.mark.slow
def test_test_loss_carries_state_over_windows(key):
    text = "".join(map(chr, np.random.default_rng(1).integers(97, 105, size=300)))
    task = char_rnn.char_rnn(text, hidden=5, batch=2, window=4, epochs=1)
    symbols = sorted(set(text))
    codes = np.array([symbols.index(character) for character in text])
    train = len(text) - round(0.2 * len(text))
    params = task.init(key)
    graphdef = nnx.graphdef(char_rnn.make_model(key, len(symbols), 5))
    model = nnx.merge(graphdef, params)
    held = codes[train:]
    length = (len(held) - 1) // 8 * 4
    rows = np.stack([held[i * length : (i + 1) * length] for i in range(2)], axis=1)
    targets = np.stack([held[i * length + 1 : (i + 1) * length + 1] for i in range(2)], axis=1)
    logits, _ = model(rows, deterministic=True)
    total, count = token_losses(logits, targets)
    np.testing.assert_allclose(jax.jit(task.evaluate)(params)["test"], total / count, rtol=1e-5)
    assert task.steps == task.eval_every == (train - 1) // 8


def test_published_rows_are_trained(text, tmp_path):
    plan = make_plan(NAME, data=tmp_path / "text.txt", quick=True)
    assert {group.name for group in plan.groups} == {n.row for n in REPRODUCTIONS[NAME].published}
    assert plan.trials == 9 and plan.evaluations == 27


@pytest.mark.slow
def test_stopped_reproduction_continues(text, tmp_path, monkeypatch):
    monkeypatch.setattr(char_rnn, "OPTIMIZERS", {"SGD": char_rnn.OPTIMIZERS["SGD"]})
    options = dict(data=tmp_path / "text.txt", epochs=1, quick=True, out=tmp_path / "out")

    def stop(trial, record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(NAME, seeds=2, **options, on_evaluation=stop)
    seen = []
    study = reproduce(NAME, seeds=2, **options, on_evaluation=lambda t, r: seen.append(t.seed))
    assert len(seen) in (1, 2) and len(study.trials) == 2
    before = (tmp_path / "out/records.jsonl").read_bytes()
    again = reproduce(NAME, seeds=2, **options)
    assert (tmp_path / "out/records.jsonl").read_bytes() == before
    (number,) = compare_with_published(again)
    assert (number.row, number.at, number.published.value) == ("SGD", "epoch 1", 2.17)
    losses = [trial.evaluations[-1]["test"] for trial in again.trials.values()]
    assert number.ours.values == tuple(losses) and len(set(losses)) == 2
