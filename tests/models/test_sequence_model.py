"""The classifier and forecaster: shapes, last valid steps, dropout, training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import sequence_model
from flax import nnx

import lstm_optax as lo

T, B, F = 6, 3, 2


def make(**options) -> lo.SequenceModel:
    sizes = dict(in_features=F, hidden_features=5)
    return sequence_model(4, **(sizes | options), rngs=nnx.Rngs(0))


def inputs():
    return np.random.default_rng(0).normal(size=(T, B, F)).astype(np.float32)


def test_output_of_every_or_last_step():
    last, every = make(num_layers=2), make(num_layers=2, every_step=True)
    answers, carry = every(inputs())
    assert answers.shape == (T, B, 4) and len(carry) == 2
    np.testing.assert_allclose(last(inputs())[0], answers[-1], rtol=1e-6)


def test_last_step_follows_row_length():
    model = make()
    lengths = np.array([6, 2, 4])
    answers, _ = model(inputs(), seq_lengths=lengths)
    for row, length in enumerate(lengths):
        alone, _ = model(inputs()[:length, row : row + 1])
        np.testing.assert_allclose(answers[row], alone[0], rtol=1e-5, atol=1e-6)


def test_bidirectional_output_reads_whole_sequence():
    model = make(bidirectional=True)
    answers, carry = model(inputs())
    whole = jnp.concatenate([carry[0].h, carry[1].h], -1)
    np.testing.assert_allclose(answers, model.output(whole), rtol=1e-6)
    changed = inputs()
    for step in (0, -1):
        changed[step] += 1
        assert not np.allclose(model(changed)[0], answers)
        changed[step] -= 1


def test_outputs_of_bfloat16_products_are_float32():
    model = make(dtype=jnp.bfloat16)
    assert model(inputs())[0].dtype == jnp.float32
    assert model.output.kernel.dtype == jnp.float32
    assert make(param_dtype=jnp.bfloat16).output.kernel.dtype == jnp.bfloat16


def test_weight_dropout_acts_in_layer():
    model = make(weight_dropout=0.5)
    one = model(inputs(), rngs=nnx.Rngs(dropout=1))[0]
    assert not np.allclose(one, model(inputs(), deterministic=True)[0])
    with pytest.raises(ValueError, match="out_features is 0"):
        lo.SequenceModel(model.lstm, 0, rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_acts_before_output_layer(every_step, layers):
    """The input of the output layer is scaled or zero; the layer drops between its own layers."""
    model = make(dropout=0.5, every_step=every_step, num_layers=layers, hidden_features=32)
    seen = []
    model.output = lambda x: seen.append(x) or x  # record the input of the output layer
    model(inputs(), rngs=nnx.Rngs(dropout=1))
    model(inputs(), deterministic=True)
    dropped, plain = map(np.asarray, seen)
    assert 0.3 < (dropped != 0).mean() < 0.7
    if layers == 1:
        np.testing.assert_allclose(dropped, np.where(dropped, plain / 0.5, 0), rtol=1e-6)
    assert (model.lstm.dropout.rate, model.dropout.rate) == (0.5 if layers == 2 else 0, 0.5)


@pytest.mark.parametrize("time_major", [True, False])
def test_locked_dropout_holds_over_steps(time_major):
    """Each row has its own mask."""
    options = dict(dropout=0.5, locked_dropout=True, every_step=True, hidden_features=32)
    model = make(**options, time_major=time_major)
    seen = []
    model.output = lambda x: seen.append(x) or x
    model(inputs() if time_major else inputs().swapaxes(0, 1), rngs=nnx.Rngs(dropout=1))
    mask = np.asarray(seen[0] if time_major else seen[0].swapaxes(0, 1)) != 0
    assert (mask == mask[0]).all() and not (mask == mask[:, :1]).all()
    last = make(**options | dict(every_step=False), time_major=time_major)
    last.output = lambda x: seen.append(x) or x
    last(inputs() if time_major else inputs().swapaxes(0, 1), rngs=nnx.Rngs(dropout=1))
    mask = np.asarray(seen[1]) != 0
    assert mask.shape == (B, 32) and not (mask == mask[:1]).all()


@pytest.mark.slow
def test_probe_and_resets_reach_layer():
    model, resets = make(num_layers=2), np.arange(T)[:, None] == np.full(B, 3)
    flows = lo.probe(
        lambda flows: jnp.sum(model(inputs(), resets=resets, probe=flows)[0]), T, B, layers=2
    )
    for flow in flows:
        assert np.all(flow.h[3:] > 0) and not np.any(flow.h[:3])  # no gradient crosses a reset


@pytest.mark.slow
def test_model_learns_exclusive_or():
    """A linear model does not get below ln 2."""
    task = lo.data.delayed_xor(2)
    rngs = nnx.Rngs(0)
    model = lo.SequenceModel(lo.LSTM(task.features, 16, rngs=rngs), task.outputs, rngs=rngs)
    graphdef, params = nnx.split(model)

    def measure(params, carry, batch):
        answers, _ = nnx.merge(graphdef, params)(batch.inputs)
        return lo.sequence_losses(answers, batch.targets), carry

    def loss(params, carry, batch, key):
        (total, count), carry = measure(params, carry, batch)
        return total / count, carry

    optimizer = lo.nadam(0.03)
    state = lo.init_state(params, optimizer, (), jax.random.key(0))
    validation = [task(p, batch=64, seed=1) for p in range(4)]
    result = lo.fit(
        lo.make_step(loss, optimizer),
        state,
        partial(task, batch=64),
        steps=200,
        eval_every=200,
        evaluate=lo.make_evaluate(measure, (), validation),
    )
    assert result.history[-1]["val_loss"] < task.solved
