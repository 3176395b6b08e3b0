"""The character model as a task: parts of the text, windows, carry, evaluation."""

import jax
import numpy as np
import pytest
from flax import nnx

import lstm_optax as lo
from lstm_optax.data import TextError, Vocabulary, Windows, ngram_losses
from lstm_optax.models import LanguageModel, token_losses
from lstm_optax.studies import sweep
from lstm_optax.tasks import characters
from lstm_optax.training import make_evaluate

SIZES = dict(embedding=3, hidden=4, batch=3, window=5, held_out=0.1, steps=4, eval_every=2)
LENGTH = 400
HELD = 40


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text in which the place of each pair of characters is known."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    codes = np.random.default_rng(0).integers(26, size=LENGTH)
    path.write_text("".join(chr(97 + code) for code in codes))
    return path


@pytest.fixture(scope="module")
def task(text):
    return characters(text=text, **SIZES)


@pytest.fixture(scope="module")
def parts(text):
    vocabulary = Vocabulary.of(text.read_text())
    codes = vocabulary.encode(text.read_text())
    return codes[: -2 * HELD], codes[-2 * HELD : -HELD], codes[-HELD:], len(vocabulary)


def test_task_does_not_work(task, parts):
    task.check()
    assert task.baselines == ngram_losses(parts[0], parts[2], parts[3])
    assert task.settings["text"] == "text.txt" and len(task.settings["sha256"]) == 64


def test_training_reads_held_out_text(task, parts):
    """One pass over the windows is the training part in order, and no other character."""
    train, rows = parts[0], 3
    length = (len(train) - 1) // rows
    count = length // 5
    first = next(p for p in range(count) if task.batches(p, 7).resets[0].all() and p > 0)
    windows = [task.batches(first + p, 7) for p in range(count)]
    inputs, targets = (
        np.concatenate([getattr(window, name) for window in windows])
        for name in ("inputs", "targets")
    )
    for row in range(rows):
        start = row * length
        np.testing.assert_array_equal(inputs[:, row], train[start : start + count * 5])
        np.testing.assert_array_equal(targets[:, row], train[start + 1 : start + count * 5 + 1])


def test_carry_crosses_the_wrong_windows(task):
    """The carry is zeroed at position 0 of a trial and where the text starts again."""
    count = ((LENGTH - 2 * HELD - 1) // 3) // 5
    starts = set()
    for seed in range(6):
        resets = [task.batches(position, seed).resets for position in range(count + 1)]
        assert all(not window[1:].any() for window in resets)
        at = [position for position, window in enumerate(resets) if window[0].any()]
        assert all(resets[position][0].all() for position in at)
        start = np.random.default_rng([seed, 0]).integers(count)
        assert at == sorted({0, int(count - start)})
        starts.add(int(start))
    assert len(starts) > 1, "a seed has no effect on the batches"
    again = task.batches(2, 3)
    jax.tree.map(np.testing.assert_array_equal, again, task.batches(2, 3))


def test_first_window_reads_a_carry(task):
    params, batch = task.init(jax.random.key(0)), task.batches(0, 3)
    zero = task.initial_carry()
    full = jax.tree.map(lambda x: x + 1.0, zero)
    values = [task.loss(params, carry, batch, jax.random.key(0))[0] for carry in (zero, full)]
    assert values[0] == values[1]
    values = [
        task.loss(params, carry, task.batches(1, 3), jax.random.key(0))[0] for carry in (zero, full)
    ]
    assert values[0] != values[1]


def test_evaluation_differs_from_make_evaluate(task, parts):
    params = task.init(jax.random.key(1))
    rngs = nnx.Rngs(0)
    model = LanguageModel(parts[3], lo.LSTM(3, 4, rngs=rngs), rngs=rngs)
    graphdef, _ = nnx.split(model)

    def measure(params, carry, batch):
        logits, carry = nnx.merge(graphdef, params)(batch.inputs, carry, resets=batch.resets)
        return token_losses(logits, batch.targets), carry

    found = jax.jit(task.evaluate)(params)
    for name, part in zip(("validation", "test"), parts[1:3], strict=True):
        windows = list(Windows.of(part, 3, 5, pad=True))
        evaluate = make_evaluate(measure, model.lstm.initial_carry(3), windows)
        np.testing.assert_allclose(found[name], evaluate(params), 1e-5)
        targets = sum((window.targets >= 0).sum() for window in windows)
        assert targets == HELD - 1, "every character except the first is predicted once"


@pytest.mark.slow
def test_dropout_is_missing_or_evaluated(text):
    task = characters(text=text, **SIZES | dict(layers=2, dropout=0.5))
    params, carry = task.init(jax.random.key(0)), task.initial_carry()
    keys = jax.random.split(jax.random.key(1))
    values = [task.loss(params, carry, task.batches(0, 0), key)[0] for key in keys]
    assert values[0] != values[1]
    assert task.evaluate(params) == task.evaluate(params)


@pytest.mark.slow
def test_layouts_differ_with_an_lstm(text):
    task = characters(text=text, **SIZES | dict(dropout=0.2))
    grid = {"learning_rate": (0.01, 0.1, 1.0)}
    options = dict(grid=grid, extensions=0, schedule="constant", clip=0.0)
    first, second = (sweep(task, "adam", layout=layout, **options) for layout in ("map", "vmap"))
    init_key, step_key = jax.random.split(jax.random.key(1000))
    optimizer = lo.adam(0.1)
    state = lo.init_state(task.init(init_key), optimizer, task.initial_carry(), step_key)
    result = lo.fit(
        lo.make_step(task.loss, optimizer),
        state,
        lambda position: task.batches(position, 1000),
        steps=4,
        evaluate=lambda params: dict(task.evaluate(params)),
        metric="validation",
        eval_every=2,
    )
    for records in (first.records, second.records):
        rows = records.trials["adam learning_rate=0.1 seed=1000"].evaluations
        for row, other in zip(rows, result.history, strict=True):
            np.testing.assert_allclose(row["validation"], other["val_validation"], 1e-4)
            np.testing.assert_allclose(row["loss"], other["train_loss"], 1e-4)


BAD = {
    "held_out": (dict(held_out=0.5), "held_out is 0.5, but must be a number above 0 and below 0.5"),
    "batch": (dict(batch=0), "batch is 0, but must be a whole number of at least 1"),
    "window": (dict(window=0), "window is 0, but must be a whole number of at least 1"),
    "hidden": (dict(hidden=0), "hidden.* is 0, but must be a whole number of at least 1"),
    "embedding": (dict(embedding=0), ".* is 0, but must be a whole number of at least 1"),
    "layers": (dict(layers=0), ".*layers is 0, but must be a whole number of at least 1"),
    "dropout": (dict(dropout=1.5), r"dropout is 1.5, but must be a number in \[0, 1"),
    "long window": (
        dict(window=200),
        "the text has 320 tokens, batch 3 × window 200 needs 601",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_size_is_accepted(name, text):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        characters(text=text, **SIZES | changes)


def test_missing_text_is_accepted(tmp_path):
    with pytest.raises(TextError, match="missing.txt"):
        characters(text=tmp_path / "missing.txt", **SIZES)
