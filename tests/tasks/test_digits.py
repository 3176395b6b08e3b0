"""Sequential digits: the protocol with stand-in images, and scikit-learn's where it is installed.

Importing scikit-learn takes more than a second, so that only slow tests do.
"""

import importlib
import json
import math
import re

import jax
import numpy as np
import pytest

import lstm_optax as lo
from lstm_optax.tasks import digits

COUNT = 50


@pytest.fixture
def images(monkeypatch):
    """Pixels and classes in place of scikit-learn's; the first pixel is the number of the image."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(17, size=(COUNT, 64)).astype(float)
    pixels[:, 0] = np.arange(COUNT)
    classes = np.arange(COUNT) % 10

    class Datasets:
        @staticmethod
        def load_digits(*, return_X_y):
            assert return_X_y
            return pixels, classes

    original = importlib.import_module
    monkeypatch.setattr(
        "lstm_optax.tasks._digits.import_module",
        lambda name: Datasets if name == "sklearn.datasets" else original(name),
    )
    return pixels, classes


def test_task_follows_the_protocol(images, key):
    task = digits(hidden=3, batch=4)
    task.check()
    assert json.loads(json.dumps(task.settings)) == dict(task.settings)
    metrics = jax.eval_shape(task.evaluate, jax.eval_shape(task.init, key))
    names = {"validation", "validation_accuracy", "test", "test_accuracy"}
    assert set(metrics) == names and task.metric == "validation" and task.test_metric == "test"


def test_pixels_are_read_in_order(images):
    pixels, classes = images
    inputs, targets = digits(hidden=3, batch=30).batches(2, 1)
    assert inputs.shape == (64, 30, 1) and inputs.dtype == np.float32
    rows = np.rint(inputs[0, :, 0] * 16).astype(int)
    np.testing.assert_array_equal(inputs[..., 0].T * 16, pixels[rows])
    np.testing.assert_array_equal(targets, classes[rows])


def test_rows_are_read_in_order(images):
    pixels, _ = images
    task = digits(order="rows", hidden=3, batch=30)
    task.check()
    inputs, _ = task.batches(2, 1)
    assert inputs.shape == (8, 30, 8)
    rows = np.rint(inputs[0, :, 0] * 16).astype(int)
    for step in range(8):
        np.testing.assert_array_equal(inputs[step] * 16, pixels[rows, 8 * step : 8 * step + 8])


def test_held_out_images_are_not_trained(images):
    task = digits(hidden=3, batch=2000, validation=0.2, test=0.1)
    numbers = set(np.rint(task.batches(0, 0).inputs[0, :, 0] * 16).astype(int))
    assert len(numbers) == 35 < COUNT
    other = digits(hidden=3, batch=2000, validation=0.2, test=0.1).batches(1, 7)
    assert set(np.rint(other.inputs[0, :, 0] * 16).astype(int)) == numbers


def test_batches_depend_on_position_and_seed(images):
    task = digits(hidden=3, batch=8)
    one = task.batches(3, 1).inputs
    np.testing.assert_array_equal(one, digits(hidden=3, batch=8).batches(3, 1).inputs)
    for position, seed in ((4, 1), (3, 2)):
        assert not np.array_equal(one, task.batches(position, seed).inputs)


def test_zero_model_scores_as_uniform(images, key):
    task = digits(hidden=3, batch=4)
    shapes = jax.eval_shape(task.init, key)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    metrics = jax.jit(task.evaluate)(params)
    assert task.baselines["uniform"] == math.log(10)
    np.testing.assert_allclose(metrics["test"], math.log(10), rtol=1e-6)
    loss, carry = jax.jit(task.loss)(params, (), task.batches(0, 0), key)
    np.testing.assert_allclose(loss, math.log(10), rtol=1e-6)
    assert carry == ()


def test_accuracy_counts_correct_answers(images, key):
    """A model of zeros answers 0, which is right for 5 of the 50 images in all."""
    task = digits(hidden=3, batch=2000, validation=0.2, test=0.1)
    shapes = jax.eval_shape(task.init, key)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    metrics = jax.jit(task.evaluate)(params)
    numbers = np.unique(np.rint(task.batches(0, 0).inputs[0, :, 0] * 16).astype(int))
    held_out = 10 * metrics["validation_accuracy"] + 5 * metrics["test_accuracy"]
    assert held_out + np.sum(numbers % 10 == 0) == pytest.approx(5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(order="columns"), "order is 'columns', but must be 'pixels' or 'rows'"),
        (dict(batch=0), "batch is 0, but must be a whole number of at least 1"),
        (dict(validation=1.5), "validation is 1.5, but must be a share between 0 and 1"),
        (
            dict(test=0.001),
            "validation 0.1 and test 0.001 of 50 images leave 45 for training, 5 for validation "
            "and 0 for the test: each part needs at least 1",
        ),
    ],
)
def test_bad_argument_is_named(images, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        digits(**changes)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, "sklearn.datasets", None)
    message = re.escape("scikit-learn is needed for its digits: pip install 'lstm_optax[digits]'")
    with pytest.raises(ImportError, match=message):
        digits()


@pytest.mark.slow
def test_model_learns_digits(key):
    pytest.importorskip("sklearn", reason="needs pip install 'lstm_optax[digits]'")
    task = digits(hidden=16)
    task.check()
    assert task.baselines["class frequencies"] == pytest.approx(math.log(10), abs=0.02)
    optimizer = lo.nadam(0.01)
    result = lo.fit(
        lo.make_step(task.loss, optimizer),
        lo.init_state(task.init(key), optimizer, task.initial_carry(), key),
        lambda position: task.batches(position, 0),
        steps=400,
    )
    metrics = task.evaluate(result.state.params)
    assert metrics["test"] < math.log(10) / 2 and metrics["test_accuracy"] > 0.7
