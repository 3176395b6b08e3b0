"""Weight dropout of the recurrent kernels, and locked dropout over time."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_optax import LSTM, LSTMParams, lstm_sequence
from lstm_optax.lstm import layer as layer_module

T, B, F, H = 4, 3, 2, 32


def make(**options) -> LSTM:
    return LSTM(F, H, **options, rngs=nnx.Rngs(params=0))


def inputs(time=T):
    return np.random.default_rng(0).normal(size=(time, B, F)).astype(np.float32)


def rngs(seed=3) -> nnx.Rngs:
    return nnx.Rngs(dropout=seed)


@pytest.fixture
def calls(monkeypatch) -> list:
    """Return parameters, inputs and outputs of each `lstm_sequence` call by the layer."""
    seen = []

    def spy(params, x, *args, **options):
        outputs, state = lstm_sequence(params, x, *args, **options)
        seen.append((params, x, outputs))
        return outputs, state

    monkeypatch.setattr(layer_module, "lstm_sequence", spy)
    return seen


def test_dropped_zero_others_scaled(calls):
    """Each layer and direction has its own mask; biases and input kernels are unchanged."""
    lstm = make(num_layers=2, bidirectional=True, weight_dropout=0.2)
    lstm(inputs(), rngs=rngs())
    kept = []
    for used, own in zip([params for params, _, _ in calls], lstm.params(), strict=True):
        np.testing.assert_array_equal(used.kernel_ih, own.kernel_ih)
        np.testing.assert_array_equal(used.bias, own.bias)
        mask = np.asarray(used.kernel_hh != 0)
        np.testing.assert_allclose(
            used.kernel_hh, np.where(mask, own.kernel_hh / 0.8, 0), rtol=1e-6
        )
        assert mask.mean() == pytest.approx(0.8, abs=0.03)  # 4096 weights: σ = .006
        kept.append(mask)
    for one, other in zip(kept, [*kept[1:], kept[0]], strict=True):
        assert (one & other).mean() == pytest.approx(0.64, abs=0.04)


@pytest.mark.slow
def test_mean_of_dropped_kernels_is_kernel(calls):
    lstm = make(weight_dropout=0.5)
    for seed in range(50):
        lstm(inputs(1), rngs=rngs(seed))
    kernels = np.stack([params.kernel_hh for params, _, _ in calls])
    own = np.asarray(lstm.params()[0].kernel_hh)
    mean = kernels.mean(0)
    error = np.abs(mean - own) / np.maximum(np.abs(own), 1e-6)
    assert error.mean() == pytest.approx(
        np.sqrt(2 / np.pi / 50), rel=0.1
    )  # standard error of 50 draws
    assert np.sum(mean * own) / np.sum(own * own) == pytest.approx(1, abs=0.02)


def test_one_mask_per_call(calls):
    lstm = make(weight_dropout=0.5)
    outputs, carry = lstm(inputs(), rngs=rngs())
    plain = LSTM.from_params([calls[0][0]])
    chex.assert_trees_all_equal((outputs, carry), plain(inputs()))
    assert not np.allclose(outputs, lstm(inputs(), deterministic=True)[0])


def test_gradient_reaches_kept_weights_only(calls):
    lstm = make(weight_dropout=0.5)
    graphdef, params = nnx.split(lstm)

    def loss(params):
        return jnp.sum(jnp.square(nnx.merge(graphdef, params)(inputs(), rngs=rngs())[0]))

    gradient = jax.grad(loss)(params)["layers"][0]["forward"]["kernel_hh"][...]
    lstm(inputs(), rngs=rngs())
    kernel = calls[-1][0].kernel_hh
    np.testing.assert_array_equal(gradient != 0, kernel != 0)

    def of_kernel(kernel):
        own = lstm.params()[0]
        used = LSTMParams(own.kernel_ih, kernel, own.bias)
        return jnp.sum(jnp.square(lstm_sequence(used, inputs())[0]))

    expected = jnp.where(kernel != 0, jax.grad(of_kernel)(kernel) / 0.5, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [dict(weight_dropout=0.5), dict(dropout=0.5, num_layers=2)])
def test_mask_depends_only_on_key(options):
    lstm = make(locked_dropout="dropout" in options, **options)
    one, other = lstm(inputs(), rngs=rngs())[0], lstm(inputs(), rngs=rngs(4))[0]
    np.testing.assert_array_equal(one, lstm(inputs(), rngs=rngs())[0])
    assert not np.allclose(one, other)
    plain = make(**options | dict(dropout=0.0, weight_dropout=0.0))(inputs())[0]
    np.testing.assert_array_equal(lstm(inputs(), deterministic=True)[0], plain)
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        lstm(inputs())
    lstm.step(inputs()[0])  # a single step drops nothing
    lstm.eval()
    np.testing.assert_array_equal(lstm(inputs())[0], plain)


@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize("locked", [True, False])
def test_locked_dropout_is_constant_over_time(calls, locked, time_major):
    lstm = make(num_layers=2, dropout=0.25, locked_dropout=locked, time_major=time_major)
    x = inputs(16)
    lstm(x if time_major else np.swapaxes(x, 0, 1), rngs=rngs())
    (_, _, before), (_, after, _) = calls
    mask = np.asarray(after != 0)
    np.testing.assert_allclose(after, np.where(mask, before / 0.75, 0), rtol=1e-6)
    assert mask.mean() == pytest.approx(0.75, abs=0.1)
    assert (mask == mask[:1]).all() == locked
    assert not (mask == mask[:, :1]).all()  # each row has its own mask


def test_zero_rate_draws_nothing():
    plain, zero = make(num_layers=2), make(num_layers=2, weight_dropout=0.0, dropout=0.0)
    programs = [str(jax.make_jaxpr(lambda x, m=m: m(x))(inputs())) for m in (plain, zero)]
    assert programs[0] == programs[1] and "random" not in programs[0]
    drawn = str(jax.make_jaxpr(lambda x: make(weight_dropout=0.1)(x, rngs=rngs()))(inputs()))
    assert "random" in drawn


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rejects_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=f"weight_dropout is {rate}, but must be a number in"):
        make(weight_dropout=rate)
