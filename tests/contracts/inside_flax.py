"""Contracts inside Flax: three updates equal those of the plain chain, on every kind of LSTM."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState
from rows import Row, close

import lstm_optax as lo

STEPS = 3
N, H = 2, 3


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
    """Return the parameters and the state after the updates of the plain chain."""
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


def lstm_cell_equals_the_chain(row: Row):
    check_nnx(row.build(), lambda: nnx.OptimizedLSTMCell(N, H, rngs=nnx.Rngs(0)))


def every_lstm_equals_the_chain(row: Row):
    check_nnx(row.build(), FourKinds)


def every_lstm_equals_the_chain_in_jit(row: Row):
    check_nnx(row.build(), FourKinds, nnx.jit(updated))


def train_state_equals_the_chain(row: Row):
    tx, params = row.build(), {}
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


def dense_layer_equals_the_chain(row: Row):
    """Three steps of `nnx.Optimizer`, Linen's `TrainState` and the plain loop are the same."""
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    gradient = {"kernel": jnp.full((3, 2), 0.5), "bias": jnp.full(2, -0.5)}
    tx = row.build()
    linen_state = TrainState.create(apply_fn=lambda: None, params=params, tx=tx)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    nnx.update(model, _nnx_state(params))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    at, state = params, tx.init(params)
    for _ in range(STEPS):
        updates, state = tx.update(gradient, state, at)
        at = optax.apply_updates(at, updates)
        linen_state = linen_state.apply_gradients(grads=gradient)
        optimizer.update(model, _nnx_state(gradient))
    close(linen_state.params, at)
    close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), at)


def _nnx_state(tree):
    return nnx.State({name: nnx.Param(value) for name, value in tree.items()})
