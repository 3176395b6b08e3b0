"""The parameters of a checkpoint, read without the model and the optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain import plain_for

import lstm_optax as lo

PARAMS = {"a": {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros(3)}, "list": [jnp.ones(2)]}
OPTIMIZERS = {
    "none": lo.nadam(0.1),
    "polyak": lo.polyak_average(lo.nadam(0.1)),
    "triggered": lo.triggered_average(lo.sgd(0.1)),
    "in a chain": optax.chain(lo.ema_average(lo.sgd(0.1), 0.9), optax.identity()),
    "masked": optax.masked(
        lo.ema_average(lo.sgd(0.1), 0.9), {"a": {"w": True, "b": False}, "list": [True]}
    ),
    "parted": optax.partition(
        {0: lo.ema_average(lo.sgd(0.1), 0.9), 1: lo.sgd(0.2)},
        {"a": {"w": 0, "b": 1}, "list": [1]},
    ),
    "guarded": lo.guard(lo.ema_average(lo.nadam(0.1), 0.9), max_consecutive_errors=2),
    "schedule-free": optax.contrib.schedule_free_adamw(0.1),
}


@pytest.mark.parametrize("name", plain_for(OPTIMIZERS, ["none", "parted"]))
def test_read_params_of_any_optimizer(name, tmp_path):
    optimizer = optax.with_extra_args_support(OPTIMIZERS[name])
    state = lo.init_state(PARAMS, optimizer, (), jax.random.key(0))
    params, opt_state = state.params, state.opt_state
    for _ in range(3):
        updates, opt_state = optimizer.update(
            jax.tree.map(jnp.ones_like, params), opt_state, params, value=jnp.float32(1.0)
        )
        params = optax.apply_updates(params, updates)
    lo.Checkpoints(tmp_path).save(3, state._replace(params=params, opt_state=opt_state))
    expected = lo.eval_params(opt_state, params)
    saved = lo.read_params(tmp_path)
    assert saved.step == 3 and all(type(x) is np.ndarray for x in jax.tree.leaves(saved.params))
    chex.assert_trees_all_close(saved.params, expected, rtol=1e-6)
    chex.assert_trees_all_close(lo.read_params(tmp_path, PARAMS).params, expected, rtol=1e-6)
    chex.assert_trees_all_equal(lo.read_params(tmp_path, average=False).params, params)
    averaged = name not in ("none", "triggered")
    assert averaged == any(
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (saved.params, params)), strict=True)
    )


def test_read_params_keeps_float64(tmp_path):
    with jax.enable_x64(True):
        params = {"w": jnp.asarray([1 + 1e-12])}
        state = lo.init_state(params, lo.ema_average(lo.sgd(0.1), 0.9), (), jax.random.key(0))
        lo.Checkpoints(tmp_path).save(1, state)
    (read,) = jax.tree.leaves(lo.read_params(tmp_path).params)
    assert read.dtype == np.float64 and read[0] == 1 + 1e-12


def test_read_params_rejects_other_structure(tmp_path):
    with pytest.raises(lo.CheckpointError, match="there is no checkpoint"):
        lo.read_params(tmp_path / "none")
    lo.Checkpoints(tmp_path).save(1, {"params": PARAMS})
    with pytest.raises(ValueError, match="checkpoint of step 1 has no parameter 'c'"):
        lo.read_params(tmp_path, PARAMS | {"c": jnp.ones(1)})
    with pytest.raises(ValueError, match=r"'a/b' is float32\(3,\) in .* step 1; expected float16"):
        lo.read_params(tmp_path, {"a": {"b": jax.ShapeDtypeStruct((3,), jnp.float16)}})
    lo.Checkpoints(tmp_path / "other").save(1, {"weights": PARAMS})
    with pytest.raises(lo.CheckpointError, match=r"has no 'params', it has \['weights'\]"):
        lo.read_params(tmp_path / "other")
