"""Rules by gate inside Flax's optimizers, with blocks that no key names and in wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from inside_flax import H, N, by_hand, check_nnx, gradients_like, updated

import lstm_optax as lo

pytestmark = pytest.mark.slow


def flat_model():
    """A model with the flat vector of cuDNN, and its find_gates."""
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    model.lstm = nnx.Param(jnp.asarray(rng.normal(size=4 * (N * H + H * H + 2 * H)), jnp.float32))
    return model


def test_packed_leaf_with_unnamed_blocks():
    """The parts of a variable that no key names stay one array, and move with `others`."""
    layout = {"lstm": lo.gates.CuDNNLayout(N, H)}
    rules = {"forget": lo.momentum(0.9), ("bias", "cell"): lo.adam(0.1)}
    tx = lo.by_gate(rules, others=lo.nadam(0.1), gates=lambda p: lo.find_gates(p, layout=layout))
    check_nnx(tx, flat_model)
    params = nnx.to_pure_dict(nnx.state(flat_model(), nnx.Param))
    gradients = gradients_like(params)
    moved, _ = by_hand(tx, params, gradients)
    alone, _ = by_hand(lo.nadam(0.1), params, gradients)
    for block in lo.find_gates(params, layout=layout).blocks:
        same = np.allclose(block.take(moved["lstm"]), block.take(alone["lstm"]), atol=1e-6)
        named = block.gate == "forget" or (block.kind, block.gate) == ("bias", "cell")
        assert same == (not named)


def test_partitioned_variables_with_unnamed_blocks():
    """The rest of a kernel has the kernel's rank, so that its sharding fits."""
    names = nnx.with_partitioning(nnx.initializers.ones, (None, "data"))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    tx = lo.by_gate({"forget": lo.sgd(0.1)}, others=lo.nadam(0.1))
    with jax.set_mesh(mesh):
        model = nnx.OptimizedLSTMCell(2, 4, recurrent_kernel_init=names, rngs=nnx.Rngs(0))
        gradients = gradients_like(nnx.state(model, nnx.Param))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        nnx.jit(updated)(optimizer, model, gradients)
    (moments,) = lo.find_states(nnx.as_pure(optimizer.opt_state), lo.transforms.EmaState)
    kernel = moments.mu["dense_h"]["kernel"]
    assert kernel.shape == (4, 12) and kernel.addressable_shards[0].data.shape == (4, 6)


@pytest.mark.parametrize("wrap", [lo.guard, lo.polyak_average, lo.triggered_average])
def test_wrapped_gate_rule_in_nnx(wrap):
    tx = wrap(optax.chain(lo.clip_by_global_norm(1.0), lo.gate_muon(0.1)))
    check_nnx(tx, lambda: lo.LSTM(N, H, rngs=nnx.Rngs(0)), nnx.jit(updated))
