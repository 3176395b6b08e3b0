"""Rules are for real floats: anything else is an error, and complex numbers have a remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import other_dtypes_are_refused
from rows import lstm_params_of

import lstm_optax as lo
from lstm_optax import presets
from lstm_optax.presets import links

WRAPPERS = {
    "nesterov": lo.nesterov,
    "running_max": lo.running_max,
    "keep_dtype": lo.keep_dtype,
    "guard": lo.guard,
    "polyak_average": lo.polyak_average,
    "triggered_average": lo.triggered_average,
    "by_gate": lo.by_gate,
    "ema_average": lambda inner: lo.ema_average(inner, 0.9),
    "debias": lambda inner: lo.debias(inner, 0.9),
    "precondition": lambda inner: lo.precondition(inner, optax.identity(), eps=1.0),
    "links": lambda inner: optax.chain(inner, links.clip_each_by_norm(1.0)),
}
OTHERS = [jnp.complex64, jnp.int32, jnp.bool_]


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("dtype", OTHERS)
def test_wrappers_reject_other_dtypes(name, dtype):
    other_dtypes_are_refused(WRAPPERS[name](optax.identity()), dtype)


@pytest.mark.parametrize("dtype", OTHERS)
def test_integer_parameters_are_rejected(dtype):
    other_dtypes_are_refused(lo.sgd(0.1), dtype)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float4_e2m1fn])
def test_floats_below_16_bits_are_rejected(dtype):
    for tx in (lo.sgd(0.1), lo.adam(0.1), lo.gate_muon(0.1), lo.guard(lo.sgd(0.1))):
        other_dtypes_are_refused(tx, dtype)


def test_leaves_without_numbers_are_rejected():
    for leaf in ("float32", len, np.ones(2, object), np.ones(2, np.longdouble)):
        with pytest.raises(ValueError, match=r"^the parameter \['a'\] is .*; expected real floats"):
            lo.adam(0.1).init({"a": leaf})


def test_message_names_the_remedy():
    with pytest.raises(
        ValueError, match="wrap the whole optimizer in optax.contrib.split_real_and"
    ):
        lo.rmsprop(0.1).init(jnp.complex64(1))
    with pytest.raises(ValueError, match="exclude it with optax.masked or optax.partition"):
        lo.rmsprop(0.1).init({"count": jnp.int32(1)})
    with pytest.raises(ValueError, match="take its real part, or for complex parameters wrap"):
        lo.sgd(0.1).update(jnp.complex64(1), lo.sgd(0.1).init(jnp.float32(1)))
    with pytest.raises(ValueError, match="use a separate optimizer for complex parameters"):
        lo.gate_muon(0.1).init(lstm_params_of() | {"phase": jnp.complex64(1)})


def test_split_rmsprop_steps_as_pytorch():
    """One step of RMSprop for a gradient of 3 + 4i is −10 − 10i at α = .99."""
    for preset in (presets.torch.RMSprop(1.0, eps=0.0), lo.rmsprop(1.0, decay=0.99, eps=0.0)):
        tx, params = optax.contrib.split_real_and_imaginary(preset), jnp.complex64(0)
        update, _ = tx.update(jnp.complex64(3 + 4j), tx.init(params), params)
        np.testing.assert_allclose(update, -10 - 10j, rtol=1e-6)


def test_partition_separates_complex_leaves():
    """The remedy for rules by gate."""
    params = lstm_params_of() | {"phase": jnp.complex64(1)}
    ours = optax.contrib.split_real_and_imaginary(lo.sgd(0.1))
    labels = jax.tree.map(lambda p: "complex" if jnp.iscomplexobj(p) else "real", params)
    tx = optax.partition({"real": lo.by_gate(lo.sgd(0.1)), "complex": ours}, labels)
    updates, _ = tx.update(params, tx.init(params), params)
    for update, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(update, -0.1 * p, rtol=1e-6)


def test_global_norm_of_complex_numbers():
    tree = {"a": jnp.complex64(3 + 4j), "b": jnp.float32(12), "c": jnp.zeros(2, jnp.complex64)}
    np.testing.assert_allclose(lo.global_norm(tree), 13, rtol=1e-6)
    large = jnp.array([3e30 + 4e30j, 0], jnp.complex64)
    np.testing.assert_allclose(lo.global_norm(large), 5e30, rtol=1e-6)
    assert not np.isfinite(lo.global_norm(jnp.array([1j * np.inf, 1], jnp.complex64)))


TORCH = {
    "SGD": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9, "weight_decay": 0.1},
    "Adam": {"weight_decay": 0.1},
    "AdamW": {"amsgrad": True},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_split_presets_equal_pytorch(name, need, x64):
    torch, options = need("torch"), {"lr": 0.1, **TORCH[name]}
    rng = np.random.default_rng(0)
    values = rng.normal(size=(21, 3)) + 1j * rng.normal(size=(21, 3))
    theirs = torch.tensor(values[0], requires_grad=True)
    optimizer = getattr(torch.optim, name)([theirs], **options)
    tx = optax.contrib.split_real_and_imaginary(getattr(presets.torch, name)(**options))
    ours = jnp.asarray(values[0])
    state = tx.init(ours)
    for gradient in values[1:]:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        updates, state = tx.update(jnp.asarray(gradient), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-6)  # NAdam's is float32
