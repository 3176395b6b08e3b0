"""The layer of a model: used as it is, and rejected where it does not fit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_optax import LSTM, LanguageModel, SequenceModel

TOKENS = np.array([[1, 2], [3, 4], [0, 1]])
X = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
KINDS = ["language", "sequence"]


def layer(features=4, hidden=8, **options) -> LSTM:
    return LSTM(features, hidden, **options, rngs=nnx.Rngs(params=0))


def wrap(kind, lstm, **options):
    """Return a model around the layer, and an input."""
    rngs = nnx.Rngs(params=1)
    if kind == "language":
        return LanguageModel(5, lstm, **options, rngs=rngs), TOKENS
    return SequenceModel(lstm, 3, every_step=True, **options, rngs=rngs), X


@pytest.mark.parametrize("kind", KINDS)
def test_model_keeps_given_layer(kind):
    lstm = layer(num_layers=2)
    before = jax.tree.map(jnp.copy, nnx.state(lstm))
    model, x = wrap(kind, lstm)
    assert model.lstm is lstm
    chex.assert_trees_all_equal(nnx.state(model.lstm), before)
    inputs = model.embedding(x) if kind == "language" else x
    outputs, carry = lstm(inputs)
    found, found_carry = model(x)
    np.testing.assert_array_equal(found, model.output(outputs))
    chex.assert_trees_all_equal(found_carry, carry)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_and_model_dropout_are_separate(kind):
    only_layer, x = wrap(kind, layer(num_layers=2, dropout=0.5))
    only_model, _ = wrap(kind, layer(num_layers=2), dropout=0.5)
    for model in (only_layer, only_model):
        plain, dropped = model(x, deterministic=True)[0], model(x, rngs=nnx.Rngs(dropout=1))[0]
        assert not np.allclose(plain, dropped)
    assert (only_layer.lstm.dropout.rate, only_layer.dropout.rate) == (0.5, 0)
    assert (only_model.lstm.dropout.rate, only_model.dropout.rate) == (0, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_keeps_its_dropout_stream(kind):
    """The model's `rngs` have no stream for dropout; the layer's have one."""
    lstm = LSTM(4, 8, weight_dropout=0.5, rngs=nnx.Rngs(params=0, dropout=7))
    stream = jax.tree.leaves(nnx.state(lstm, nnx.RngCount))
    model, x = wrap(kind, lstm)
    chex.assert_trees_all_equal(jax.tree.leaves(nnx.state(model, nnx.RngCount)), stream)
    assert not np.allclose(model(x)[0], model(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, param_dtype", [("bfloat16", "float32"), (None, "bfloat16")])
def test_model_follows_dtypes_of_layer(kind, dtype, param_dtype):
    model, _ = wrap(kind, layer(dtype=dtype, param_dtype=jnp.dtype(param_dtype)))
    parts = [model.output] + ([model.embedding] if kind == "language" else [])
    assert all(jnp.dtype(part.dtype) == jnp.bfloat16 for part in parts)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model))} == {param_dtype}


def test_layer_of_existing_params_is_used():
    params = layer().params()
    model, _ = wrap("language", LSTM.from_params(params))
    chex.assert_trees_all_equal(model.lstm.params(), params)
    assert model.embedding.embedding.shape == (5, 4) and model.output.kernel.shape == (8, 5)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(bidirectional=True), "lstm is bidirectional; .* with bidirectional=False"),
        (dict(time_major=False), "lstm has time_major=False; expected True, .*time_major=True"),
    ],
)
def test_language_model_rejects_unfit_layer(options, message):
    with pytest.raises(ValueError, match=message):
        wrap("language", layer(**options))
    outputs, _ = wrap("sequence", layer(**options))[0](X)  # a sequence model takes both
    assert outputs.shape == (3, 2, 3)


def test_tied_model_rejects_unequal_sizes():
    message = (
        r"lstm has in_features 4 and hidden_features 8; expected equal sizes, since tied=True .*"
        r"build LSTM\(8, 8\), or leave tied=False"
    )
    with pytest.raises(ValueError, match=message):
        wrap("language", layer(), tied=True)
    assert wrap("language", layer(8, 8), tied=True)[0](TOKENS)[0].shape == (3, 2, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "lstm, found",
    [
        (64, "of type int"),
        (None, "of type NoneType"),
        (LSTM, "the class LSTM"),
        (nnx.Linear(4, 8, rngs=nnx.Rngs(0)), "of type Linear"),
    ],
    ids=["size", "none", "class", "other layer"],
)
def test_other_than_layer_is_named(kind, lstm, found):
    with pytest.raises(ValueError, match=rf"^lstm is {found}; expected a layer, such as LSTM\(64"):
        wrap(kind, lstm)


@pytest.mark.parametrize("kind", KINDS)
def test_locked_dropout_without_rate_is_named(kind):
    """The layer's own rate is not the model's."""
    lstm = layer(num_layers=2, dropout=0.5)
    with pytest.raises(ValueError, match="locked_dropout=True needs a dropout above 0"):
        wrap(kind, lstm, locked_dropout=True)
    with pytest.raises(ValueError, match="^locked_dropout is 1, but must be True or False"):
        wrap(kind, lstm, dropout=0.5, locked_dropout=1)
