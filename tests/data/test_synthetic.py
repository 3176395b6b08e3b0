"""Synthetic tasks: shapes, targets, baselines, and the loss of linear predictions."""

import itertools
import math

import jax
import numpy as np
import pytest

import lstm_optax as lo

ROWS = 20_000


def cross_entropy(probability) -> float:
    """Return the mean cross-entropy in nats from the probabilities of the true classes."""
    return float(-np.log(probability).mean())


def linear_error(inputs, targets) -> float:
    """Return the mean squared error of the best linear prediction, on held-out sequences."""
    x = np.concatenate(
        [inputs.transpose(1, 0, 2).reshape(len(targets), -1), np.ones((len(targets), 1))], 1
    )
    half = len(targets) // 2
    weights = np.linalg.lstsq(x[:half], targets[:half], rcond=None)[0]
    return float(np.square(x[half:] @ weights - targets[half:]).mean())


TASKS = {
    "adding": lo.data.adding(20),
    "adding, odd": lo.data.adding(7),
    "temporal_order": lo.data.temporal_order(20),
    "temporal_order, odd": lo.data.temporal_order(19),
    "copy_memory": lo.data.copy_memory(5),
    "delayed_xor": lo.data.delayed_xor(10),
}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@every_task
def test_batch_has_shapes_of_task(task):
    inputs, targets = task(3, batch=6, seed=1)
    assert inputs.shape == (task.length, 6, task.features) and inputs.dtype == np.float32
    if np.issubdtype(targets.dtype, np.integer):
        assert targets.shape == ((task.length, 6) if task.every_step else (6,))
        assert targets.dtype == np.int32
        many = task(0, batch=500).targets
        assert set(many.flat) == set(range(task.outputs))
    else:
        assert targets.shape == (6, task.outputs) and targets.dtype == np.float32


@every_task
def test_batch_axes_split_rows(task):
    """Each of eight devices gets an eighth of the rows, in order."""
    batch = task(0, batch=16)
    stacked = jax.tree.map(lambda leaf: leaf[None], batch)
    shared = lo.BatchSharding(task.batch_axes).batches(stacked)
    for leaf, axis in zip(shared, task.batch_axes, strict=True):
        assert len(leaf.addressable_shards) == jax.device_count() == 8
        for shard in leaf.addressable_shards:
            assert shard.data.shape[1 + axis] == 2
            np.testing.assert_array_equal(shard.data, np.asarray(leaf)[shard.index])


@every_task
def test_batch_depends_on_position_and_seed(task):
    one, same = task(3, batch=6, seed=1), task(3, batch=6, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    others = task(4, batch=6, seed=1), task(3, batch=6, seed=2), task(1, batch=6, seed=3)
    assert not any(np.array_equal(one.inputs, other.inputs) for other in others)
    rows = one.inputs.transpose(1, 0, 2).reshape(6, -1)
    assert len(np.unique(rows, axis=0)) == 6


def test_adding_target_is_marked_sum():
    inputs, targets = TASKS["adding"](0, batch=ROWS)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks[:10].sum(0), 1)
    np.testing.assert_array_equal(marks[10:].sum(0), 1)
    np.testing.assert_allclose(marks.mean(1), 0.1, atol=0.01)  # uniform in its half
    assert 0 <= numbers.min() and numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(1), 1 / 2, atol=0.01)
    np.testing.assert_allclose(numbers.var(1), 1 / 12, atol=0.002)
    computed = np.sort(np.where(marks == 1, numbers, 0), 0)[-2:].sum(0)
    np.testing.assert_allclose(computed, targets[:, 0], atol=1e-6)


def test_adding_baseline_and_linear_loss():
    task = TASKS["adding"]
    inputs, targets = task(0, batch=ROWS)
    assert task.baseline == 1 / 6
    assert np.square(targets - 1).mean() == pytest.approx(1 / 6, rel=0.02)
    assert np.var(targets) == pytest.approx(1 / 6, rel=0.02)  # no constant is better
    expected = 1 / 6 - 1 / (3 * 20)
    assert linear_error(inputs, targets[:, 0]) == pytest.approx(expected, rel=0.03)
    assert linear_error(inputs[-1:], targets[:, 0]) > 0.97 / 6


def test_temporal_order_target_is_symbol_order():
    inputs, targets = TASKS["temporal_order"](0, batch=ROWS)
    np.testing.assert_array_equal(inputs.sum(-1), 1)
    symbols = inputs.argmax(-1)
    assert set(symbols[0]) == {6} and set(symbols[-1]) == {7}
    symbol_steps = symbols[1:-1] >= 4
    np.testing.assert_array_equal(symbol_steps.sum(0), 2)
    assert set(np.flatnonzero(symbol_steps.any(1)) + 1) == {2, 3, 10, 11}
    np.testing.assert_allclose(symbol_steps.mean(1)[[1, 2, 9, 10]], 0.5, atol=0.02)
    others = symbols[1:-1][~symbol_steps]
    np.testing.assert_allclose(np.bincount(others, minlength=4) / len(others), 0.25, atol=0.01)
    in_order = np.where(symbol_steps, symbols[1:-1], 0).T[symbol_steps.T].reshape(-1, 2) - 4
    np.testing.assert_array_equal(2 * in_order[:, 0] + in_order[:, 1], targets)


def test_temporal_order_baseline_is_ln_4():
    """If one of the two symbols is known, ln 2 remains."""
    task = TASKS["temporal_order"]
    inputs, targets = task(0, batch=ROWS)
    shares = np.bincount(targets) / ROWS
    assert task.baseline == math.log(4)
    assert cross_entropy(shares[targets]) == pytest.approx(task.baseline, abs=1e-3)
    assert linear_error(inputs[-1:], targets % 2) > 0.245  # the variance of a coin is 1/4
    seen = inputs[:, :, 5].sum(0)  # number of Y; XY and YX are the same
    alike = [targets[seen == 1] == answer for answer in (1, 2)]
    np.testing.assert_allclose([a.mean() for a in alike], 0.5, atol=0.02)


def test_copy_memory_target_follows_delay():
    task = TASKS["copy_memory"]
    inputs, targets = task(0, batch=500)
    np.testing.assert_array_equal(inputs.sum(-1), 1)
    symbols = inputs.argmax(-1)
    assert task.length == 25 and set(symbols[:10].flat) == set(range(8))
    assert set(symbols[10:14].flat) == {8} == set(symbols[15:].flat)
    assert set(symbols[14]) == {9}
    assert set(targets[:15].flat) == {8}
    np.testing.assert_array_equal(targets[15:], symbols[:10])
    assert all(np.flatnonzero(s == 9)[0] + 1 == 15 for s in symbols.T)


def test_copy_memory_baseline_is_ten_guesses():
    task = TASKS["copy_memory"]
    inputs, targets = task(0, batch=ROWS)
    assert task.baseline == pytest.approx(10 * math.log(8) / 25)
    at_step = [np.bincount(step, minlength=9) / ROWS for step in targets]
    guessed = np.stack([shares[step] for shares, step in zip(at_step, targets, strict=True)])
    assert cross_entropy(guessed) == pytest.approx(task.baseline, rel=1e-3)
    first = inputs[0].argmax(-1)
    for step in range(16, 25):  # one symbol does not predict the others
        pairs = np.bincount(8 * first + targets[step], minlength=64) / ROWS
        np.testing.assert_allclose(pairs, 1 / 64, atol=5e-3)


def test_delayed_xor_marks_are_delay_apart():
    inputs, targets = TASKS["delayed_xor"](0, batch=ROWS)
    signs, marks = inputs[..., 0], inputs[..., 1]
    assert set(np.unique(signs)) == {-1, 1} and set(np.unique(marks)) == {0, 1}
    np.testing.assert_array_equal(marks.sum(0), 2)
    np.testing.assert_array_equal(marks[:10], marks[10:])  # a delay apart
    np.testing.assert_allclose(marks.mean(1), 0.1, atol=0.01)
    np.testing.assert_array_equal(np.prod(np.where(marks == 1, signs, 1), 0), 1 - 2 * targets)


def test_delayed_xor_baseline_is_ln_2():
    task = TASKS["delayed_xor"]
    inputs, targets = task(0, batch=ROWS)
    signs, marks = inputs[..., 0], inputs[..., 1]
    assert task.baseline == math.log(2)
    assert cross_entropy(np.full(ROWS, 0.5)) == pytest.approx(task.baseline)
    assert targets.mean() == pytest.approx(0.5, abs=0.01)
    marked = (signs * marks)[:10].sum(0), (signs * marks)[10:].sum(0)
    for answer in itertools.chain([marked[0], marked[1], marked[0] + marked[1]], signs):
        assert abs(np.corrcoef(answer, targets)[0, 1]) < 0.03
    both = np.concatenate([inputs, (signs * marks)[..., None]], -1)
    assert linear_error(both, targets) > 0.247


@every_task
def test_solved_is_twentieth_of_baseline(task):
    assert task.solved == pytest.approx(task.baseline / 20)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lo.data.adding(1), "length is 1, but must be a whole number of at least 2"),
        (
            lambda: lo.data.temporal_order(9),
            "length is 9, but must be a whole number of at least 10",
        ),
        (lambda: lo.data.copy_memory(0), "delay is 0, but must be a whole number of at least 1"),
        (lambda: lo.data.delayed_xor(-1), "delay is -1, but must be a whole number of at least 1"),
        (lambda: lo.data.adding(2.5), "length is 2.5, but must be a whole number of at least 2"),
        (
            lambda: lo.data.adding()(math.inf, batch=2),
            "position is inf, but must be a whole number of at least 0",
        ),
        (
            lambda: lo.data.adding()(0, batch=math.nan),
            "batch is nan, but must be a whole number of at least 1",
        ),
        (
            lambda: lo.data.adding()(-1, batch=2),
            "position is -1, but must be a whole number of at least 0",
        ),
        (
            lambda: lo.data.adding()(0, batch=0),
            "batch is 0, but must be a whole number of at least 1",
        ),
        (
            lambda: lo.data.adding()(0, batch=2, seed=-3),
            "seed is -3, but must be a whole number of at least 0",
        ),
    ],
)
def test_tasks_reject_invalid_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lo.data.adding, lo.data.temporal_order, lo.data.copy_memory, lo.data.delayed_xor]
)
def test_tasks_accept_shortest_and_default_length(make):
    least = {lo.data.adding: 2, lo.data.temporal_order: 10}.get(make, 1)
    for task in (make(least), make()):
        assert task(0, batch=3).inputs.shape == (task.length, 3, task.features)
