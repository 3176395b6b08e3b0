"""Initial values through the gate map, in every layout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from layouts_table import LAYOUTS, H, as_lstm_params

import lstm_optax as lo
from lstm_optax import find_gates, gate_slice, init_chrono, init_forget_bias, init_orthogonal
from lstm_optax.gates import GATES

every_layout = pytest.mark.parametrize("name", LAYOUTS)


def cells_before_and_after(name, init):
    """Return the cells of a layout as LSTMParams, before and after."""
    layout = LAYOUTS[name]
    find, params = partial(find_gates, **layout.arguments), layout.params()
    found = find(params)
    after = init(params, gates=find)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)
    before = as_lstm_params(jax.device_get(params), found)
    after = as_lstm_params(jax.device_get(after), found)
    return [(before[cell], after[cell]) for cell in before]


def biases_of(cell):
    return {gate: np.asarray(cell.bias)[gate_slice(gate, H)] for gate in GATES}


@every_layout
def test_forget_bias_sets_total_bias(name):
    """The sum of all biases, with Haiku's own 1; other arrays are unchanged."""
    for before, after in cells_before_and_after(name, partial(init_forget_bias, value=2.5)):
        np.testing.assert_allclose(biases_of(after)["forget"], 2.5, rtol=1e-6)
        for gate in ("input", "cell", "output"):
            np.testing.assert_array_equal(biases_of(after)[gate], biases_of(before)[gate])
        np.testing.assert_array_equal(after.kernel_ih, before.kernel_ih)
        np.testing.assert_array_equal(after.kernel_hh, before.kernel_hh)


@every_layout
def test_chrono_in_every_layout(name, key):
    draws = []
    for before, after in cells_before_and_after(name, partial(init_chrono, key=key, max_time=50)):
        biases, unmoved = biases_of(after), biases_of(before)
        draws.append(biases["forget"])
        assert np.all((biases["forget"] >= 0) & (biases["forget"] <= np.log(49)))
        np.testing.assert_allclose(biases["input"], -biases["forget"], atol=1e-6)
        for gate in ("cell", "output"):
            np.testing.assert_array_equal(biases[gate], unmoved[gate])
        np.testing.assert_array_equal(after.kernel_hh, before.kernel_hh)
    assert len({tuple(draw) for draw in draws}) == len(draws)  # each cell has its own draw


def test_chrono_is_log_uniform(key):
    """u = exp(b_f) has mean T/2 and variance (T − 2)²/12, and covers its range."""
    units, time = 4096, 100
    params = lo.LSTMParams(None, None, jnp.zeros(4 * units))
    bias = init_chrono(params, key, max_time=time).bias
    u = np.exp(bias[gate_slice("forget", units)])
    deviation = (time - 2) / np.sqrt(12)
    assert abs(np.mean(u) - time / 2) < 5 * deviation / np.sqrt(units)
    assert abs(np.std(u) - deviation) < 0.05 * deviation
    assert 1 <= u.min() < 2 and time - 2 < u.max() <= time - 1


@every_layout
def test_orthogonal_in_every_layout(name, key):
    blocks = []
    for before, after in cells_before_and_after(name, partial(init_orthogonal, key=key, scale=0.5)):
        for gate in GATES:
            block = after.kernel_hh[:, gate_slice(gate, H)]
            np.testing.assert_allclose(block.T @ block, 0.25 * np.eye(H), atol=1e-5)
            blocks.append(block.tobytes())
        np.testing.assert_array_equal(after.kernel_ih, before.kernel_ih)
        np.testing.assert_array_equal(after.bias, before.bias)
    assert len(set(blocks)) == len(blocks)


@pytest.mark.slow
def test_initializers_of_lstm_under_jit(key):
    lstm = lo.LSTM(
        3, H, num_layers=2, bidirectional=True, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)
    )

    @nnx.jit
    def start(lstm):
        state = nnx.state(lstm, nnx.Param)
        nnx.update(lstm, init_orthogonal(init_forget_bias(state, 2.0), key))

    start(lstm)
    for params in lstm.params():
        assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.bfloat16)}
        np.testing.assert_array_equal(params.bias[gate_slice("forget", H)], 2.0)


@pytest.mark.parametrize("max_time", [1.5, float("nan"), -3])
def test_chrono_rejects_invalid_max_time(max_time, key):
    with pytest.raises(ValueError, match="max_time is .*, but must be a number of at least 2"):
        init_chrono(LAYOUTS["Equinox"].params(), key, max_time=max_time)


def test_rejects_lstm_without_bias():
    params = {"encoder": LAYOUTS["Equinox"].params() | {"bias": None}}
    with pytest.raises(ValueError, match="the LSTM at 'encoder', layer 0, forward, has no bias"):
        init_forget_bias(params)
    with pytest.raises(ValueError, match="there is no LSTM"):
        init_forget_bias({"w": jnp.ones(3)})
