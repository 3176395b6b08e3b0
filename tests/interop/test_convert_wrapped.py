"""Names and layouts of LSTM weights in wrappers and older libraries."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax import LSTMParams, LSTMState, lstm_sequence
from lstm_optax.interop import (
    lstm_from_torch,
    lstm_params_from_keras,
    lstm_params_from_tensorflow,
    lstm_params_from_torch,
    lstm_params_to_tensorflow,
)

T, B, F, H = 5, 3, 2, 4


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


PLAIN = {
    "weight_ih_l0": draw(4 * H, F, seed=1),
    "weight_hh_l0": draw(4 * H, H, seed=2),
    "bias_ih_l0": draw(4 * H, seed=3),
    "bias_hh_l0": draw(4 * H, seed=4),
}
REST = {name: value for name, value in PLAIN.items() if name != "weight_hh_l0"}
G, V, MASK = draw(4 * H, 1, seed=5), draw(4 * H, H, seed=6), draw(4 * H, H, seed=7) > 0
NORMED = G * V / np.linalg.norm(V, axis=1, keepdims=True)
WRAPPED = {
    "cell": ({name[:-3]: w for name, w in PLAIN.items()}, PLAIN["weight_hh_l0"]),
    "weight drop": (REST | {"weight_hh_l0_raw": V, "weight_hh_l0": V * MASK}, V),
    "weight drop of fastai": (
        {f"module.{name}": w for name, w in PLAIN.items()} | {"weight_hh_l0_raw": V},
        V,
    ),
    "weight norm": (REST | {"weight_hh_l0_g": G, "weight_hh_l0_v": V}, NORMED),
    "weight norm of all": (
        REST | {"weight_hh_l0_g": np.float64(3), "weight_hh_l0_v": V},
        3 * V / np.linalg.norm(V),
    ),
    "parametrized": (
        REST
        | {
            "parametrizations.weight_hh_l0.original0": G,
            "parametrizations.weight_hh_l0.original1": V,
        },
        NORMED,
    ),
    "pruned": (REST | {"weight_hh_l0_orig": V, "weight_hh_l0_mask": MASK * 1.0}, V * MASK),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weight_is_computed_from_parts(name, x64):
    weights, kernel_hh = WRAPPED[name]
    (expected,) = lstm_params_from_torch(PLAIN | {"weight_hh_l0": kernel_hh})
    named = {f"rnn.{key}": w for key, w in weights.items()} | {"head.weight": V}
    (found,) = lstm_params_from_torch(named, prefix="rnn.")
    chex.assert_trees_all_close(found, expected, rtol=1e-12)
    chex.assert_trees_all_close(lstm_from_torch(weights).params(), (expected,), rtol=1e-12)


def test_backward_direction_of_wrapper_is_found():
    weights = {}
    for suffix in ("", "_reverse"):
        weights |= {f"{name}{suffix}": w for name, w in REST.items()}
        weights[f"weight_hh_l0{suffix}_raw"] = V
    assert lstm_from_torch(weights).directions == ("forward", "backward")


@pytest.mark.parametrize(
    "parts, message",
    [
        (
            {"parametrizations.weight_hh_l0.original": V},
            r"in the parts \['original'\], and no rule",
        ),
        (
            {"weight_hh_l0_orig": V, "weight_hh_l0_u": V[:, 0], "weight_hh_l0_v": V[0]},
            r"rnn.weight_hh_l0 is stored in the parts \['orig', 'u', 'v'\].*remove_parametrization",
        ),
        ({"weight_hh_l0_g": G}, r"in the parts \['g'\]"),
        ({"weight_hh_l0_dropped": V}, "'rnn.weight_hh_l0_dropped' is no name"),
        ({"weight_hh": V}, "'rnn.weight_hh' is no name"),
    ],
)
def test_rejects_parts_of_unknown_wrapper(parts, message):
    weights = {f"rnn.{name}": w for name, w in (REST | parts).items()}
    with pytest.raises(ValueError, match=message):
        lstm_params_from_torch(weights, prefix="rnn.")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cell", "weight_norm", "parametrizations", "prune"])
def test_wrapped_weight_equals_pytorch(need, kind, x64):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = need("torch")
        from torch.nn.utils import parametrizations, prune, weight_norm

        torch.manual_seed(0)
        theirs = (torch.nn.LSTMCell if kind == "cell" else torch.nn.LSTM)(F, H).double()
        if kind == "weight_norm":
            weight_norm(theirs, "weight_hh_l0")
        elif kind == "parametrizations":
            parametrizations.weight_norm(theirs, "weight_hh_l0")
        elif kind == "prune":
            prune.random_unstructured(theirs, "weight_hh_l0", 0.5)
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(torch.randn_like(parameter) / 3)
    x = draw(T, B, F, seed=9)
    if kind == "cell":
        state, expected = None, []
        for step in torch.tensor(x):
            state = theirs(step, state)
            expected.append(state[0].detach().numpy())
    else:
        expected = theirs(torch.tensor(x))[0].detach().numpy()
    outputs, _ = lstm_from_torch(theirs.state_dict())(x)
    np.testing.assert_allclose(outputs, np.stack(expected), rtol=1e-10)


def test_cudnn_layer_of_keras_is_read(x64):
    """Its gate blocks are flattened [hidden, inputs] matrices, and it has two biases."""
    ih = [draw(H, F, seed=i) for i in range(4)]
    hh = [draw(H, H, seed=4 + i) for i in range(4)]
    first, second = draw(4 * H, seed=8), draw(4 * H, seed=9)
    kernel = np.concatenate([w.ravel().reshape(F, H) for w in ih], axis=1)
    recurrent = np.concatenate([w.ravel().reshape(H, H) for w in hh], axis=1)
    weights = [kernel, recurrent, np.concatenate([first, second])]
    kernels = (np.concatenate([w.T for w in ws], axis=1) for ws in (ih, hh))
    expected = LSTMParams(*kernels, first + second)
    plain = [draw(H, 4 * H), draw(H, 4 * H), draw(4 * H)]
    found = lstm_params_from_keras([*weights, *plain])
    chex.assert_trees_all_equal(found, (expected, LSTMParams(*plain)))
    traced = jax.jit(lambda weights: lstm_params_from_keras(weights))(weights)
    chex.assert_trees_all_equal(traced, (expected,))


KERNEL, BIAS = draw(F + H, 4 * H, seed=1), draw(4 * H, seed=2)


def basic_lstm_cell(x, forget_bias):
    """Return the outputs of `BasicLSTMCell` by its documentation."""
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    h, c, outputs = np.zeros((B, H)), np.zeros((B, H)), []
    for step in x:
        i, j, f, o = np.split(np.concatenate([step, h], axis=1) @ KERNEL + BIAS, 4, axis=1)
        c = c * sigmoid(f + forget_bias) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 2.5])
@pytest.mark.parametrize(
    "names", [("kernel", "bias"), ("weights", "biases"), ("kernel:0", "bias:0")]
)
def test_tensorflow_cell_equals_ours(names, forget_bias, x64):
    prefix = "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/"
    variables = {f"{prefix}{name}": w for name, w in zip(names, (KERNEL, BIAS), strict=True)}
    variables |= {f"{prefix}kernel/Adam": KERNEL, "dense/kernel": KERNEL}
    params = lstm_params_from_tensorflow(variables, prefix=prefix, forget_bias=forget_bias)
    x, zero = draw(T, B, F, seed=3), jnp.zeros((B, H))
    outputs, _ = lstm_sequence(params, x, LSTMState(zero, zero))
    np.testing.assert_allclose(outputs, basic_lstm_cell(x, forget_bias), rtol=1e-11)
    back = lstm_params_to_tensorflow(params, prefix="a/", forget_bias=forget_bias)
    chex.assert_trees_all_close(back, {"a/kernel": KERNEL, "a/bias": BIAS}, rtol=1e-12)


@pytest.mark.parametrize(
    "variables, message",
    [
        (
            {"kernel": KERNEL, "bias": BIAS, "w_f_diag": BIAS[:H]},
            "w_f_diag: the cell has peepholes",
        ),
        ({"kernel": KERNEL, "bias": BIAS, "projection/kernel": KERNEL}, "cell has a projection"),
        ({"kernel": KERNEL}, "bias is missing"),
        ({"kernel": KERNEL[: H - 1], "bias": BIAS}, r"kernel has shape \(3, 16\); expected"),
        ({"kernel": KERNEL, "bias": BIAS, "input/gamma": BIAS}, "TensorFlow 1 has no 'input/gam"),
    ],
)
def test_rejects_other_tensorflow_cell(variables, message):
    with pytest.raises(ValueError, match=message):
        lstm_params_from_tensorflow(variables)
