"""Three updates of every rule inside Flax equal the plain chain, on every kind of LSTM."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from plain import plain_for
from presets_table import PRESETS
from rules_table import RULES, SAMPLE
from test_by_gate_contract import ROWS

import lstm_optax as lo

STEPS = 3
N, H = 2, 3
EVERY_RULE = RULES | PRESETS | ROWS


class FourKinds(nnx.Module):
    """An LSTM of each kind that NNX has: this library's, Flax's two cells, and a cell in an RNN."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.lstm = lo.LSTM(N, H, rngs=rngs)
        self.cell = nnx.LSTMCell(N, H, rngs=rngs)
        self.optimized = nnx.OptimizedLSTMCell(N, H, rngs=rngs)
        self.rnn = nnx.RNN(nnx.LSTMCell(N, H, rngs=rngs))


def gradients_like(params) -> list:
    rng = np.random.default_rng(0)

    def draw(p):
        return jnp.asarray(rng.normal(size=p.shape), jnp.float32)

    return [jax.tree.map(draw, params) for _ in range(STEPS)]


def by_hand(tx, params, gradients):
    """The parameters and the state after the updates of the plain chain."""
    tx = optax.with_extra_args_support(tx)

    @jax.jit
    def run(params):
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    return run(params)


def updated(optimizer, model, gradients):
    for gradient in gradients:
        optimizer.update(model, gradient)


def check_nnx(tx, make_model, update=updated):
    """Compare parameters, state and average with those of the plain chain."""
    model = make_model()
    variables = nnx.state(model, nnx.Param)
    gradients = gradients_like(variables)
    pure = nnx.as_pure(variables)
    params, state = by_hand(tx, pure, [nnx.as_pure(g) for g in gradients])
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    update(optimizer, model, gradients)
    ours, kept = nnx.as_pure(nnx.state(model, nnx.Param)), nnx.as_pure(optimizer.opt_state)
    chex.assert_trees_all_close((ours, kept), (params, state), rtol=1e-4, atol=1e-5)
    evaluated = lo.eval_params(kept, ours), lo.report_validation_loss(kept, 1.0)
    expected = lo.eval_params(state, params), lo.report_validation_loss(state, 1.0)
    chex.assert_trees_all_close(evaluated, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gate_muon", "by_gate, keys", "awd_sgd"])
def test_three_updates_inside_nnx(name):
    check_nnx(EVERY_RULE[name].build(), lambda: nnx.OptimizedLSTMCell(N, H, rngs=nnx.Rngs(0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_RULE)
def test_every_rule_inside_nnx_jit(name):
    check_nnx(EVERY_RULE[name].build(), FourKinds, nnx.jit(updated))


@pytest.mark.slow
@pytest.mark.parametrize("name", plain_for(EVERY_RULE, [*SAMPLE, *ROWS], pytest.mark.soak))
def test_every_rule_inside_nnx(name):
    check_nnx(EVERY_RULE[name].build(), FourKinds)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_RULE)
def test_every_rule_inside_train_state(name):
    tx, params = EVERY_RULE[name].build(), {}
    for cell in (linen.LSTMCell(H), linen.OptimizedLSTMCell(H)):
        carry = cell.initialize_carry(jax.random.key(0), (1, N))
        variables = cell.init(jax.random.key(0), carry, jnp.ones((1, N)))
        params[type(cell).__name__] = variables["params"]
    gradients = gradients_like(params)
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    for gradient in gradients:
        state = state.apply_gradients(grads=gradient)
    expected = by_hand(tx, params, gradients)
    chex.assert_trees_all_close((state.params, state.opt_state), expected, rtol=1e-4, atol=1e-5)


def flat_model():
    """A model with the flat vector of cuDNN, and its find_gates."""
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    model.lstm = nnx.Param(jnp.asarray(rng.normal(size=4 * (N * H + H * H + 2 * H)), jnp.float32))
    return model


@pytest.mark.slow
def test_packed_leaf_with_unnamed_blocks_inside_nnx():
    """What is left of several parts of one variable stays one array, and moves as it should."""
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


@pytest.mark.slow
def test_partitioned_variables_with_unnamed_blocks_inside_nnx():
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


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lo.guard, lo.polyak_average, lo.triggered_average])
def test_wrapped_gate_rule_inside_nnx(wrap):
    tx = wrap(optax.chain(lo.clip_by_global_norm(1.0), lo.gate_muon(0.1)))
    check_nnx(tx, lambda: lo.LSTM(N, H, rngs=nnx.Rngs(0)), nnx.jit(updated))
