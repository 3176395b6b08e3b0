"""Weights of `torch.nn.LSTM`: outputs equal the oracle, outputs and gradients PyTorch's."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx

from lstm_optax import LSTM, LSTMParams
from lstm_optax.interop import (
    lstm_from_torch,
    lstm_params_from_torch,
    lstm_params_to_torch,
    lstm_to_torch,
)

T, B, F, H = 5, 3, 2, 4


def torch_named(layers=1, bidirectional=False, bias=True, prefix="", seed=0) -> dict:
    """Return random weights with PyTorch's names, in its order."""
    rng = np.random.default_rng(seed)
    suffixes = ("", "_reverse") if bidirectional else ("",)
    weights = {}
    for layer in range(layers):
        for suffix in suffixes:
            features = F if layer == 0 else H * len(suffixes)
            shapes = {"weight_ih": (4 * H, features), "weight_hh": (4 * H, H)}
            shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)} if bias else {}
            for name, shape in shapes.items():
                weights[f"{prefix}{name}_l{layer}{suffix}"] = rng.normal(size=shape) / 2
    return weights


def by_oracle(weights, x, layers, bidirectional, bias):
    directions = {"forward": ""} | ({"backward": "_reverse"} if bidirectional else {})
    stack = []
    for layer in range(layers):
        row = {}
        for direction, suffix in directions.items():
            at = f"_l{layer}{suffix}"
            total = weights[f"bias_ih{at}"] + weights[f"bias_hh{at}"] if bias else np.zeros(4 * H)
            row[direction] = (weights[f"weight_ih{at}"].T, weights[f"weight_hh{at}"].T, total)
        stack.append(row)
    zero = {direction: (np.zeros((B, H)), np.zeros((B, H))) for direction in directions}
    return oracle.stacked(stack, x, [zero] * layers, bidirectional=bidirectional)[0]


def inputs(seed=1):
    return np.random.default_rng(seed).normal(size=(T, B, F))


STACKS = [(1, False, True), (2, False, False), (1, True, False), (2, True, True)]
stacks = pytest.mark.parametrize("layers, bidirectional, bias", STACKS)


@stacks
def test_stack_of_torch_weights_equals_oracle(layers, bidirectional, bias, x64):
    weights, x = torch_named(layers, bidirectional, bias), inputs()
    lstm = lstm_from_torch(weights)
    chex.assert_trees_all_equal(lstm.params(), lstm_params_from_torch(weights))
    expected = by_oracle(weights, x, layers, bidirectional, bias)
    chex.assert_trees_all_close(lstm(x)[0], expected, rtol=1e-12)


@pytest.mark.slow
@stacks
def test_outputs_and_gradients_equal_pytorch(layers, bidirectional, bias, x64):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(F, H, num_layers=layers, bidirectional=bidirectional, bias=bias).double()
    x = torch.tensor(inputs(), requires_grad=True)
    outputs, carry = theirs(x)
    (torch.sum(torch.sin(outputs)) + sum(torch.sum(torch.cos(s)) for s in carry)).backward()

    def loss(weights, x):
        outputs, carry = lstm_from_torch(weights)(x)
        ends = jax.tree.map(lambda s: jnp.sum(jnp.cos(s)), carry)
        return jnp.sum(jnp.sin(outputs)) + sum(jax.tree.leaves(ends)), (outputs, carry)

    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in theirs.named_parameters()}
    step = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (grads, grad_x), (mine, states) = step(weights, inputs())
    chex.assert_trees_all_close(mine, outputs.detach().numpy(), rtol=1e-12)
    for i, field in enumerate(("h", "c")):
        stacked = np.stack([getattr(state, field) for state in states])
        chex.assert_trees_all_close(stacked, carry[i].detach().numpy(), rtol=1e-12)
    chex.assert_trees_all_close(grad_x, x.grad.numpy(), rtol=1e-10, atol=1e-12)
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    chex.assert_trees_all_close(grads, expected, rtol=1e-10, atol=1e-12)
    tensors = lstm_params_from_torch(theirs.state_dict())
    chex.assert_trees_all_equal(tensors, lstm_params_from_torch(weights))


def test_prefix_ignores_other_weights():
    weights = torch_named(prefix="encoder.lstm.") | {"head.weight": np.ones((1, H))}
    params = lstm_params_from_torch(weights, prefix="encoder.lstm.")
    chex.assert_trees_all_equal(params, lstm_params_from_torch(torch_named()))
    assert len(lstm_from_torch(weights, prefix="encoder.lstm.").layers) == 1


@pytest.mark.slow
def test_layer_from_torch_takes_options():
    """The layer has the options, and one bias with a gradient."""
    weights = torch_named(2, True)
    lstm = lstm_from_torch(weights, dropout=0.5, time_major=False, dtype=jnp.bfloat16)
    same = LSTM(F, H, num_layers=2, bidirectional=True, dropout=0.5, rngs=nnx.Rngs(params=0))
    assert jax.tree.map(jnp.shape, nnx.state(lstm)) == jax.tree.map(jnp.shape, nnx.state(same))
    x = jnp.asarray(np.swapaxes(inputs(), 0, 1))
    grads = nnx.grad(lambda m: jnp.sum(m(x, deterministic=True)[0]).astype(jnp.float32))(lstm)
    assert all(np.any(g) for g in jax.tree.leaves(grads))
    outputs, _ = lstm(x, rngs=nnx.Rngs(dropout=0))
    assert outputs.shape == (B, T, 2 * H) and outputs.dtype == jnp.bfloat16


def test_from_params_round_trip():
    lstm = LSTM(F, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    again = LSTM.from_params(lstm.params(), bidirectional=True)
    chex.assert_trees_all_equal(again.params(), lstm.params())
    x = inputs().astype(np.float32)
    chex.assert_trees_all_equal(again(x), lstm(x))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_torch_round_trip_is_exact(bidirectional):
    """In PyTorch's order; the first bias is the sum, the second is zero."""
    lstm = LSTM(F, H, num_layers=2, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    weights = lstm_to_torch(lstm, prefix="lstm.")
    assert list(weights) == list(torch_named(2, bidirectional, prefix="lstm."))
    again = lstm_from_torch(weights, prefix="lstm.")
    chex.assert_trees_all_equal(again.params(), lstm.params())
    assert again.directions == lstm.directions
    assert not any(np.any(w) for name, w in weights.items() if "bias_hh" in name)
    named = jax.tree.map(np.float32, torch_named(2, bidirectional))
    back = lstm_params_to_torch(lstm_params_from_torch(named), bidirectional=bidirectional)
    for name, w in named.items():
        if name.startswith("weight"):
            chex.assert_trees_all_equal(back[name], w)
        else:
            total = named[name.replace("hh", "ih")] + named[name.replace("ih", "hh")]
            chex.assert_trees_all_equal(back[name], total if "ih" in name else 0 * w)


def without(weights, *names):
    return {name: value for name, value in weights.items() if name not in names}


@pytest.mark.parametrize(
    "weights, message",
    [
        (without(torch_named(2), "weight_hh_l1"), "weight_hh_l1 is missing"),
        (without(torch_named(3), *torch_named(2)), "weight_hh_l0 is missing"),
        (without(torch_named(), "bias_hh_l0"), "bias_hh_l0 is missing"),
        (without(torch_named(1, True), "weight_ih_l0_reverse"), "weight_ih_l0_reverse is missing"),
        ({}, "weight_hh_l0 is missing; there are no names"),
        (torch_named() | {"weight_hr_l0": np.ones((1, H))}, r"weight_hr_l0 is a projection"),
        (torch_named() | {"head.weight": np.ones((1, H))}, "'head.weight' is no name"),
        (
            torch_named(prefix="lstm."),
            "'lstm.weight_ih_l0' is no name .* pass only the LSTM's weights",
        ),
        (torch_named() | {"weight_hh_l0": np.ones((3 * H, H))}, r"weight_hh_l0 .*\(12, 4\); exp"),
        (torch_named() | {"weight_hh_l0": np.ones(4)}, r"weight_hh_l0 has shape \(4,\)"),
        (torch_named() | {"weight_ih_l0": np.ones(4)}, r"weight_ih_l0 has shape \(4,\)"),
        (torch_named() | {"weight_ih_l0": np.ones((F, 16))}, r"weight_ih_l0 .*\(2, 16\); expected"),
        (torch_named(2) | {"weight_ih_l1": np.ones((16, 3))}, r"weight_ih_l1 .*expected \(16, 4\)"),
        (torch_named() | {"bias_hh_l0": np.ones(4)}, r"bias_hh_l0 .*\(4,\); expected \(16,\)"),
    ],
)
def test_rejects_invalid_torch_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        lstm_params_from_torch(weights)


PARAMS = LSTM(F, H, rngs=nnx.Rngs(0)).params()


@pytest.mark.parametrize(
    "params, options, message",
    [
        ((), {}, "got 0 LSTMParams"),
        (PARAMS, dict(bidirectional=True), "got 1 LSTMParams; expected 2 for each layer"),
        (PARAMS * 2, {}, r"kernel_ih of params\[1\] has shape \(2, 16\); expected \(4, 16\)"),
        (
            (LSTMParams(PARAMS[0].kernel_ih, PARAMS[0].kernel_hh, np.ones(4)),),
            {},
            r"bias of params\[0\] has shape \(4,\); expected \(16,\)",
        ),
        (PARAMS, dict(backend="fast"), "unknown LSTM backend 'fast'"),
    ],
)
def test_from_params_rejects_invalid_stack(params, options, message):
    with pytest.raises(ValueError, match=message):
        LSTM.from_params(params, **options)


@pytest.mark.parametrize(
    "params, bidirectional, message",
    [
        ((), False, "got 0 LSTMParams"),
        (PARAMS, True, "got 1 LSTMParams; expected 2 for each layer"),
        (PARAMS[0], False, "got a single LSTMParams; expected a tuple"),
        (PARAMS * 2, False, r"kernels of params\[1\] .*; expected 4 features and 4 hidden units"),
        ((LSTMParams(*PARAMS[0][:2], np.ones(4)),), False, r"bias has shape \(4,\)"),
    ],
)
def test_to_torch_rejects_invalid_stack(params, bidirectional, message):
    with pytest.raises(ValueError, match=message):
        lstm_params_to_torch(params, bidirectional=bidirectional)
