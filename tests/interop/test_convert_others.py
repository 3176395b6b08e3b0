"""Conversions without the libraries: arrays of their shapes, also read by `find_gates`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_optax import LSTM, LSTMParams, find_gates
from lstm_optax.gates import GATES, KINDS
from lstm_optax.interop import (
    lstm_from_keras,
    lstm_params_from_equinox,
    lstm_params_from_flax,
    lstm_params_from_haiku,
    lstm_params_from_keras,
    lstm_params_from_tensorflow,
    lstm_params_from_torch,
    lstm_params_to_equinox,
    lstm_params_to_haiku,
    lstm_params_to_keras,
    lstm_to_keras,
)

F, H = 2, 4
CELL = (F, 4 * H), (H, 4 * H), (4 * H,)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def drawn(shapes):
    return {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def keras_weights(layers=1, directions=1, bias=True):
    shapes = []
    for layer in range(layers):
        features = F if layer == 0 else H * directions
        shapes += [(features, 4 * H), *CELL[1 : 2 + bias]] * directions
    return [draw(*shape, seed=i) for i, shape in enumerate(shapes)]


HAIKU = drawn({"w": (F + H, 4 * H), "b": (4 * H,)})
EQUINOX = drawn({"weight_ih": (4 * H, F), "weight_hh": (4 * H, H), "bias": (4 * H,)})


def by_gates(tree, **options) -> LSTMParams:
    """Return the parameters assembled from the blocks of `find_gates`."""
    leaves = dict(jax.tree_util.tree_flatten_with_path(tree)[0])
    blocks = {
        (block.kind, block.gate): block.take(leaves[block.path])
        + (block.added if block.kind == "bias" else 0)
        for block in find_gates(tree, **options).blocks
    }
    return LSTMParams(*(np.concatenate([blocks[k, g] for g in GATES], axis=-1) for k in KINDS))


@pytest.mark.parametrize(
    "found, expected",
    [
        (
            lambda: lstm_params_from_keras(keras_weights())[0],
            lambda: by_gates(
                dict(zip(("kernel", "recurrent_kernel", "bias"), keras_weights(), strict=True))
            ),
        ),
        (lambda: lstm_params_from_haiku(HAIKU), lambda: by_gates({"lstm/linear": HAIKU})),
        (lambda: lstm_params_from_equinox(EQUINOX), lambda: by_gates(EQUINOX)),
    ],
    ids=["keras", "haiku", "equinox"],
)
def test_gates_are_in_order(found, expected):
    chex.assert_trees_all_equal(found(), expected())


@pytest.mark.parametrize("layers, directions", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_keras_round_trip_is_exact(layers, directions):
    """NumPy arrays stay NumPy arrays; the layer has the weights."""
    weights = keras_weights(layers, directions)
    params = lstm_params_from_keras(weights)
    assert all(type(array) is np.ndarray for array in jax.tree.leaves(params))
    chex.assert_trees_all_equal(lstm_params_to_keras(params), weights)
    lstm = lstm_from_keras(weights, bidirectional=directions == 2)
    assert (len(lstm.layers), len(lstm.directions)) == (layers, directions)
    chex.assert_trees_all_equal(lstm_to_keras(lstm), weights)


def test_keras_without_biases():
    weights = keras_weights(2, 2, bias=False)
    params = lstm_params_from_keras(weights)
    assert len(params) == 4 and not any(np.any(cell.bias) for cell in params)
    back = lstm_params_to_keras(params)
    chex.assert_trees_all_equal([a for i, a in enumerate(back) if i % 3 < 2], weights)


def test_haiku_and_equinox_round_trip():
    params = lstm_params_from_haiku(HAIKU)
    back = lstm_params_to_haiku(params)
    chex.assert_trees_all_equal(back["w"], HAIKU["w"])
    chex.assert_trees_all_close(back["b"], HAIKU["b"], atol=2e-7)
    params = lstm_params_from_equinox(EQUINOX)
    chex.assert_trees_all_equal(lstm_params_to_equinox(params, EQUINOX), EQUINOX)
    no_bias = {name: EQUINOX[name] for name in ("weight_ih", "weight_hh")}
    expected = params._replace(bias=np.zeros(4 * H))
    chex.assert_trees_all_close(lstm_params_from_equinox(no_bias), expected)


def test_conversions_under_jit_and_grad():
    def total(weights, linear, cell):
        params = *lstm_params_from_keras(weights), lstm_params_from_haiku(linear)
        back = lstm_params_to_keras(params), lstm_params_to_haiku(params[1])
        cell = lstm_params_to_equinox(lstm_params_from_equinox(cell), cell)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves((back, cell)))

    args = keras_weights(), HAIKU, EQUINOX
    grads = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*args)
    forget = HAIKU["b"][2 * H : 3 * H]
    twice = 4 * HAIKU["b"] + np.zeros(4 * H)  # one term for each direction
    twice[2 * H : 3 * H] = 4 * forget + 2  # one term with b + 1, one with b
    doubled = jax.tree.map(lambda x: 2 * x, args)
    chex.assert_trees_all_close(grads[0], doubled[0], rtol=1e-6)
    chex.assert_trees_all_close(grads[1], {"w": 4 * HAIKU["w"], "b": twice}, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(grads[2], doubled[2], rtol=1e-6)


PARAMS = LSTM(F, H, rngs=nnx.Rngs(0)).params()
W, R, B = keras_weights()


@pytest.mark.parametrize(
    "convert, given, message",
    [
        (lstm_params_from_keras, [], "weights is empty"),
        (lstm_params_from_keras, [W], "recurrent_kernel is missing"),
        (lstm_params_from_keras, [W, R, B, W], "recurrent_kernel is missing"),
        (lstm_params_from_keras, [R, W, B], r"weights\[0\] has shape \(4, 16\); expected \(4, 8\)"),
        (lstm_params_from_keras, [W, R, B[:3]], r"weights\[2\] has shape \(3,\); expected \(16,\)"),
        (lstm_params_from_keras, [W, B, R], r"weights\[1\] has shape \(16,\); expected two axes"),
        (lstm_params_from_keras, [W[:, :12], R[:, :12]], r"weights\[0\] .*\(2, 12\); expected"),
        (lstm_params_to_keras, PARAMS[0], "got a single LSTMParams; expected a tuple"),
        (lstm_params_to_keras, [W, R, B], r"params\[0\] is a ndarray; expected an LSTMParams"),
        (lstm_params_from_haiku, {}, "w is missing; there are no names"),
        (lstm_params_from_haiku, {"linear": HAIKU}, r"w is missing; there are \['linear/b'"),
        (lstm_params_from_haiku, {"w": HAIKU["w"]}, "b is missing"),
        (lstm_params_from_haiku, {"w": W.T, "b": B}, r"w has shape \(16, 2\); expected \(features"),
        (lstm_params_from_haiku, {"w": R, "b": B}, r"w has shape \(4, 16\); expected \(features"),
        (lstm_params_from_haiku, HAIKU | {"b": B[:4]}, r"b has shape \(4,\); expected \(16,\)"),
        (lstm_params_from_haiku, HAIKU | {"w_h": W}, "an LSTM of Haiku has no 'w_h'"),
        (lstm_params_to_haiku, PARAMS, "params is a tuple; expected an LSTMParams"),
        (lstm_params_from_equinox, {}, "weight_hh is missing"),
        (lstm_params_from_equinox, EQUINOX | {"weight_hh": W.T}, r"weight_ih .* expected \(8, 2\)"),
        (lstm_params_from_equinox, EQUINOX | {"bias": B[:4]}, r"bias has shape \(4,\)"),
        (lstm_params_from_equinox, EQUINOX | {"bias_n": B}, "LSTMCell of Equinox has no 'bias_n'"),
        (lstm_params_from_equinox, lambda x: x, "this is a function; expected arrays"),
    ],
)
def test_rejects_invalid_weights(convert, given, message):
    with pytest.raises(ValueError, match=message):
        convert(given)


@pytest.mark.parametrize(
    "cell, message",
    [
        ({name: EQUINOX[name] for name in ("weight_ih", "weight_hh")}, "bias is missing"),
        (EQUINOX | {"weight_ih": draw(4 * H, 3)}, r"weight_ih has shape \(16, 3\); expected"),
    ],
)
def test_to_equinox_rejects_other_cell(cell, message):
    with pytest.raises(ValueError, match=message):
        lstm_params_to_equinox(PARAMS[0], cell)


@pytest.mark.parametrize("kind", [int, complex, object, bool])
def test_rejects_arrays_without_floats(kind):
    ih, hh, bias = (np.ones(shape, kind) for shape in CELL)
    stacked = np.concatenate([ih, hh])
    torch = {"weight_ih_l0": ih.T, "weight_hh_l0": hh.T, "bias_ih_l0": bias, "bias_hh_l0": bias}
    flax = {"dense_i": {"kernel": ih}, "dense_h": {"kernel": hh, "bias": bias}}
    for convert, weights in (
        (lstm_params_from_keras, [ih, hh, bias]),
        (lstm_params_from_haiku, {"w": stacked, "b": bias}),
        (lstm_params_from_tensorflow, {"kernel": stacked, "bias": bias}),
        (lstm_params_from_torch, torch),
        (lstm_params_from_flax, flax),
        (lstm_params_from_equinox, {"weight_ih": ih.T, "weight_hh": hh.T, "bias": bias}),
    ):
        with pytest.raises(ValueError, match=r"is (int|complex|object|bool)\w*; expected floats"):
            convert(weights)


def test_rejects_weights_without_arrays():
    ih, hh, bias = (np.ones(shape, np.float32) for shape in CELL)
    torch = {"weight_ih_l0": ih.T, "weight_hh_l0": hh.T, "bias_ih_l0": bias, "bias_hh_l0": bias}
    for value in ("abc", None, [1.0]):
        with pytest.raises(ValueError, match="^bias_hh_l0 is a .*; expected an array of floats"):
            lstm_params_from_torch(torch | {"bias_hh_l0": value})
    with pytest.raises(ValueError, match=r"^weights\[0\] is a list; expected an array of floats"):
        lstm_params_from_keras([ih.tolist(), hh, bias])
    with pytest.raises(ValueError, match="^weights is a list; expected a dictionary"):
        lstm_params_from_torch(list(torch.items()))
    with pytest.raises(ValueError, match="'1' is no name of a torch.nn.LSTM"):
        lstm_params_from_torch(torch | {1: bias})
