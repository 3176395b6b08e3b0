"""Rules by gate under a mask, and extra arguments through every wrapper."""

import jax.numpy as jnp
import optax
import pytest
from plain import plain_for
from rows import close, trajectory
from table import GATE_RULES

import lstm_optax as lo


@pytest.mark.parametrize("name", plain_for(GATE_RULES, ["by_gate, keys"]))
def test_biases_may_be_masked(name):
    """Without them, the kernels of the LSTM move as with them."""
    row = GATE_RULES[name]
    tx, params, gradients = row.build(), row.tree.params(), row.tree.gradients(3)
    alone = trajectory(tx, {"lstm": params["lstm"]}, {"lstm": gradients["lstm"]})[0]
    mask = {"lstm": lo.LSTMParams(True, True, False), "head": False}
    masked = trajectory(optax.masked(tx, mask), params, gradients)[0]
    close(masked["lstm"].kernel_hh, alone["lstm"].kernel_hh)
    close(masked["lstm"].bias, gradients["lstm"].bias)


def recorder(seen: list) -> optax.GradientTransformationExtraArgs:
    """Return an identity that appends its extra argument `value` to a list."""

    def update(updates, state, params=None, *, value):
        seen.append(value)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize(
    "wrap",
    [
        lo.nesterov,
        lo.running_max,
        lo.keep_dtype,
        lo.guard,
        lo.polyak_average,
        lo.triggered_average,
        lambda inner: lo.ema_average(inner, 0.9),
        lambda inner: lo.debias(inner, 0.9),
        lambda inner: lo.precondition(inner, optax.identity(), eps=1.0),
        lambda inner: lo.precondition(optax.identity(), inner, eps=1.0),
    ],
)
def test_wrappers_pass_extra_arguments(wrap):
    seen = []
    tx, params = wrap(recorder(seen)), {"a": jnp.ones(2)}
    tx.update(params, tx.init(params), params, value=7)
    assert set(seen) == {7}


def test_extra_arguments_reach_every_block():
    seen = []
    params = GATE_RULES["by_gate"].tree.params()
    tx = lo.by_gate(recorder(seen))
    tx.update(params, tx.init(params), params, value=7)
    assert seen == [7] * 4  # three parameters of the LSTM, and all others as one tree
