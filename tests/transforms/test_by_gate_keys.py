"""Which transformation of `by_gate` reaches which block, and which keys it rejects."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gate_cases import first, split
from rows import lstm_gradients_of as gradients_of
from rows import lstm_params_of as params_of

import lstm_optax as lo
from lstm_optax import by_gate, find_gates
from lstm_optax.gates import GATES


def test_most_specific_key_wins():
    marks = {
        "forget": optax.scale(2.0),
        "kernel_hh": optax.scale(3.0),
        ("kernel_hh", "forget"): optax.scale(5.0),
        ("bias", "output"): optax.scale(7.0),
    }
    params = jax.tree.map(jnp.ones_like, params_of())
    tx = by_gate(marks, others=optax.scale(-1.0))
    updates, _ = first(tx, params, params)
    expected = {
        "kernel_ih": {"forget": 2.0},
        "kernel_hh": dict.fromkeys(GATES, 3.0) | {"forget": 5.0},
        "bias": {"forget": 2.0, "output": 7.0},
    }
    for kind, gates in split(updates)["lstm"].items():
        for gate, block in gates.items():
            np.testing.assert_array_equal(block, expected[kind].get(gate, -1.0))
    assert all(np.all(leaf == -1) for leaf in jax.tree.leaves(updates["head"]))


def test_others_get_the_rest_as_one_tree():
    """A norm of the others is that of all that no key names, with no block twice."""
    params, gradient = params_of(), jax.tree.map(lambda g: g[0], gradients_of(3))
    tx = by_gate({"forget": optax.set_to_zero()}, others=lo.clip_by_global_norm(jnp.inf))
    updates, state = first(tx, gradient, params)
    left = split(gradient, ("input", "cell", "output"))
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(left)))
    np.testing.assert_allclose(state.others.norm, norm, rtol=1e-6)
    chex.assert_trees_all_equal(split(updates, ("input", "cell", "output")), left)
    assert not np.any(split(updates)["lstm"]["bias"]["forget"])


def test_every_parameter_is_updated_once():
    params = jax.tree.map(jnp.ones_like, params_of())
    tx = by_gate(lo.sgd(0.5))
    updates, _ = first(tx, params, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: -0.5 * p, params))


def test_state_starts_from_its_own_block():
    """Each gate's state comes from its own block."""
    params = params_of()
    keep = optax.GradientTransformation(lambda p: p, lambda u, s, p=None: (s, s))
    tx = by_gate(keep)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params))
    chex.assert_trees_all_equal(updates, params)


BAD = [
    (
        {"forgets": 1},
        "'forgets' is not a key; expected a gate (input, forget, cell, output), ",
    ),
    ({("forget", "bias"): 1}, "('forget', 'bias') is not a key"),
    ({("bias",): 1}, "('bias',) is not a key"),
    ({3: 1}, "3 is not a key"),
    (
        {"bias": 1, "forget": 1},
        "'bias' and 'forget' both name the bias of the forget gate: add the key ('bias', ",
    ),
    ({"forget": 1}, "a dictionary of transformations needs others= for all other parameters"),
]


@pytest.mark.parametrize("keys, message", BAD, ids=str)
def test_by_gate_rejects_invalid_keys(keys, message):
    rules = {key: optax.identity() for key in keys}
    with pytest.raises(ValueError, match=re.escape(message)):
        by_gate(rules)


@pytest.mark.parametrize("make", [lambda: by_gate(lo.sgd(0.1)), lambda: lo.gate_muon(0.1)])
@pytest.mark.parametrize("params", [{}, {"w": jnp.ones((3, 2))}, jnp.ones(3), None])
def test_by_gate_rejects_trees_without_lstm(make, params):
    with pytest.raises(ValueError, match="there is no LSTM in these parameters"):
        make().init(params)


def test_gates_must_be_a_function():
    """A map of given parameters is rejected, since `init` may get a tree with other paths."""
    params = params_of()
    with pytest.raises(ValueError, match="gates is a GateMap; expected a function of the param"):
        by_gate(lo.sgd(0.1), gates=find_gates(params))
    with pytest.raises(ValueError, match="gates is a str; expected a function of the parameters"):
        lo.init_forget_bias(params, gates="keras")
    with pytest.raises(ValueError, match="gates is a str; expected a function of the parameters"):
        lo.init_orthogonal(params, jax.random.key(0), gates="keras")
