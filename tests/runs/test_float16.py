"""Training a character model in float16: with loss scaling it ends as in float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_train import TEXT, Watch, assert_same

import lstm_optax as lo
from lstm_optax import TrainConfig, load_run, train_language_model
from lstm_optax.runs.build import make_losses, make_model
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.runs.run_folder import RunFolder

TOLERANCE = 2.0**-11
"""Of the loss, relative: the rounding of float16. Trainings with SGD do not amplify differences,
as Nadam at a large rate does; see docs/numerics.md."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT)
    model = dict(hidden=16, embedding=8, batch=4, window=16)
    course = dict(optimizer="sgd", learning_rate=1.0, schedule="constant", steps=100, eval_every=50)
    return TrainConfig(text=text, **model, **course)


def losses(config, dtype, *, shrink=1.0, scaled=False) -> np.ndarray:
    """Return the loss of each step if the loss is `shrink` times as large, the rate 1/shrink."""
    corpus = corpus_of(config)
    model = make_model(replace(config, dtype=dtype), len(corpus.vocabulary))
    graphdef, params = nnx.split(model)
    plain, _ = make_losses(graphdef)
    carry = model.lstm.initial_carry(config.batch)
    batches = [corpus.train(p) for p in range(config.steps)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    @jax.jit
    def run(shrink):  # an argument: as a constant, each value has a program with other roundings
        def loss(params, carry, batch, key):
            value, carry = plain(params, carry, batch, key)
            return value * shrink, carry

        optimizer = lo.sgd(config.learning_rate / shrink)
        optimizer = lo.loss_scaling(optimizer) if scaled else optimizer
        state = lo.init_state(params, optimizer, carry, jax.random.key(0))
        return jax.lax.scan(lo.make_step(loss, optimizer), state, stacked)[1].loss

    return np.asarray(run(jnp.float32(shrink)), np.float64) / shrink


def test_losses_equal_those_of_float32(config):
    exact = losses(config, "float32")
    assert exact[-1] < 0.5 * exact[0]
    np.testing.assert_allclose(losses(config, "float16", scaled=True), exact, rtol=TOLERANCE)


def test_small_losses_need_loss_scaling(config):
    """2⁻¹⁴ times the loss has the gradients that one token has in the mean over 2¹⁴ tokens."""
    small = dict(shrink=2.0**-14)
    exact = losses(config, "float32")
    np.testing.assert_array_equal(losses(config, "float32", **small), exact)
    half = losses(config, "float16", scaled=True, **small)
    np.testing.assert_allclose(half, exact, rtol=TOLERANCE)
    without = losses(config, "float16", **small)
    assert np.max(np.abs(without / exact - 1)) > 20 * TOLERANCE


def train(config, folder, **options) -> tuple[RunFolder, Watch]:
    watch = Watch(options.pop("stop", 10**9))
    train_language_model(config, folder, observer=watch.observer(), **options)
    return RunFolder(folder), watch


@pytest.mark.slow
def test_run_equals_float32(config, tmp_path):
    """The scale is recorded, and resumed; no parameter is float16."""
    rows = {}
    for dtype in ("float32", "float16"):
        run, watch = train(replace(config, dtype=dtype), tmp_path / dtype)
        rows[dtype] = run.records.read()
    for name in ("train_loss", "val_loss"):
        found, exact = ([row[name] for row in rows[dtype]] for dtype in ("float16", "float32"))
        np.testing.assert_allclose(found, exact, rtol=TOLERANCE)
    assert [row["loss_scale"] for row in rows["float16"]] == [2**15] * 2
    assert "loss scaling" in watch.of("plan")[0]["optimizer"]
    half = replace(config, dtype="float16")
    train(half, tmp_path / "broken", stop=8)
    broken, _ = train(half, tmp_path / "broken", resume=True)
    assert_same(broken, run)
    assert all(leaf.dtype != "float16" for leaf in jax.tree.leaves(load_run(run.path).params))
