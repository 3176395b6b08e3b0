"""Synthetic tasks: batches, held-out data, biases, baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_optax as lo
from lstm_optax.data import adding
from lstm_optax.tasks import sequences
from lstm_optax.tasks._sequences import SEQUENCES, TEST_SEED, VALIDATION_SEED

SIZES = dict(length=10, hidden=3, batch=2, held_out=4, steps=2, eval_every=1)


@pytest.mark.parametrize("name", SEQUENCES)
def test_task_does_not_work(name):
    task, data = sequences(name=name, **SIZES), SEQUENCES[name](10)
    task.check()
    assert task.name == name and task.baselines == {"no memory": data.baseline}
    assert task.target == data.solved and task.settings["length"] == 10


def test_batches_depend_on_the_past():
    task, again = sequences(**SIZES), sequences(**SIZES)
    first = task.batches(3, 5)
    task.batches(4, 5)
    for batch in (task.batches(3, 5), again.batches(3, 5), adding(10)(3, batch=2, seed=5)):
        jax.tree.map(np.testing.assert_array_equal, first, batch)
    others = [task.batches(3, 6), task.batches(2, 5)]
    assert all((other.inputs != first.inputs).any() for other in others)


def test_evaluation_is_not_of_held_out_data():
    task, data = sequences(**SIZES), adding(10)
    params = task.init(jax.random.key(1))
    found = task.evaluate(params)
    seeds = {"validation": VALIDATION_SEED, "test": TEST_SEED}
    for part, seed in seeds.items():
        batch = data(0, batch=4, seed=seed)
        (value, _) = task.loss(params, (), batch, jax.random.key(0))
        np.testing.assert_allclose(found[part], value, 1e-6)
    assert min(seeds.values()) > 2**31 - 1, "trials have smaller seeds"
    assert found["validation"] != found["test"]


def test_loss_is_no_mean_over_rows():
    """An oracle: squared errors of the model's answers, by NumPy."""
    task = sequences(**SIZES)
    params, batch = task.init(jax.random.key(1)), task.batches(0, 0)
    rngs = nnx.Rngs(0)
    model = lo.SequenceModel(lo.LSTM(2, 3, rngs=rngs), 1, every_step=False, rngs=rngs)
    nnx.update(model, params)
    answers, _ = model(jnp.asarray(batch.inputs))
    expected = np.mean((np.asarray(answers, np.float64) - batch.targets) ** 2)
    value, carry = task.loss(params, (), batch, jax.random.key(0))
    np.testing.assert_allclose(value, expected, 1e-5)
    assert carry == ()


@pytest.mark.parametrize("biases, expected", [("zero", 0.0), ("one", 1.0), ("chrono", None)])
def test_forget_bias_is_wrong(biases, expected):
    params = sequences(**SIZES, biases=biases).init(jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    (bias,) = [leaf for path, leaf in leaves if leaf.shape == (12,)]
    forget = np.asarray(bias)[3:6]
    if expected is None:  # log u, u in [1, length − 1)
        assert (forget >= 0).all() and (forget <= np.log(9)).all() and len(set(forget)) == 3
        np.testing.assert_allclose(np.asarray(bias)[:3], -forget)
    else:
        assert (forget == expected).all()


BAD = {
    "name": (dict(name="add"), "name is 'add', but must be 'adding' or 'copy' or"),
    "biases": (dict(biases="two"), "biases is 'two', but must be 'zero' or 'one' or 'chrono'"),
    "hidden": (dict(hidden=0), "hidden is 0, but must be a whole number of at least 1"),
    "batch": (dict(batch=0), "batch is 0, but must be a whole number of at least 1"),
    "held_out": (dict(held_out=0), "held_out is 0, but must be a whole number of at least 1"),
    "length": (dict(length=1), "length is 1, but must be a whole number of at least 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_size_is_accepted(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        sequences(**SIZES | changes)
