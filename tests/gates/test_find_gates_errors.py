"""Errors of `find_gates` for wrong shapes, unclear names and wrong arguments."""

import re

import jax
import jax.numpy as jnp
import pytest

import lstm_optax as lo
from lstm_optax import find_gates

SPEC = jax.ShapeDtypeStruct
GRU = {"weight_ih_l0": (15, 3), "weight_hh_l0": (15, 5), "bias_ih_l0": (15,), "bias_hh_l0": (15,)}
BAD = [
    ({}, {}, "there is no LSTM in these parameters: the tree is empty"),
    (
        {"dense": {"kernel": (3, 4), "bias": (4,)}},
        {},
        "no LSTM in these parameters: 'dense/bias'",
    ),
    (GRU, {}, "there is no LSTM in these parameters: 'bias_hh_l0' (15,)"),
    (
        {"rnn": {"kernel_ih": (3, 18), "kernel_hh": (5, 18), "bias": (18,)}},
        {},
        "'rnn/kernel_hh' has the name of an LSTM parameter, but shape (5, 18); expected "
        "(hidden, 4·hidden); if it does not belong to an LSTM, exclude it with "
        "layout={'rnn': None}",
    ),
    (
        {"kernel": (3, 24), "recurrent_kernel": (5, 20)},
        {},
        "'kernel' has the name of an LSTM parameter, but shape (3, 24); expected (inputs, 20)",
    ),
    (
        {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (19,)},
        {},
        "'bias' has the name of an LSTM parameter, but shape (19,); expected (20,)",
    ),
    ({"weight_ih": (20, 3), "weight_hh": (2, 20, 5)}, {}, "'weight_hh' has the name of an LSTM "),
    (
        {"a": {"weight_ih_l0": (24, 3), "bias_ih_l0": (24,)}},
        {},
        "'a/weight_ih_l0' may belong to an LSTM, but the tree has no recurrent kernel to confirm "
        "it: if it belongs to an LSTM, pass layout={'a': 'torch'}; if not, exclude it with "
        "layout={'a': None}",
    ),
    (
        {"weight_ih_l0": (22, 3)},
        {"layout": "torch"},
        "'weight_ih_l0' has the name of an LSTM parameter, but shape (22, 3); expected a",
    ),
    (
        {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 2), "weight_hr_l0": (2, 5)},
        {},
        "'weight_hr_l0' is a projection (proj_size > 0)",
    ),
    (
        {"memory/linear": {"w": (8, 20), "b": (20,)}},
        {},
        "'memory/linear/w' has a shape that an LSTM and a Linear of Haiku can have: if it belongs "
        "to an LSTM, pass layout={'memory': 'haiku'}; if not, exclude it with",
    ),
    (
        {"lstm/linear": {"w": (5, 20), "b": (20,)}},
        {},
        "'lstm/linear/w' has the name of an LSTM parameter, but shape (5, 20); expected "
        "(inputs + hidden, 4·hidden)",
    ),
    ({"lstm/linear": {"w": (8, 20), "b": (16,)}}, {}, "'lstm/linear/b' has the name"),
    (
        {f"h{gate}": {"kernel": (5, 5)} for gate in "ifgo"} | {"ii": {"kernel": (3, 5)}},
        {},
        "the LSTM cell at '' has no if, ig, io; pass all eight modules, or exclude it with",
    ),
    (
        {
            k + gate: {"kernel": (5, 4) if k + gate == "ho" else (5, 5)}
            for gate in "ifgo"
            for k in "ih"
        },
        {},
        "'ho/kernel' has the name of an LSTM parameter, but shape (5, 4); expected (inputs, 5)",
    ),
    (
        {k + gate: {"kernel": (3, 5)} for gate in "ifgo" for k in "ih"},
        {},
        "'hf/kernel' has the name of an LSTM parameter, but shape (3, 5); expected (5, 5)",
    ),
    (
        {"w": (99,)},
        {"layout": lo.gates.CuDNNLayout(3, 5)},
        "'w' has shape (99,); expected (200,) for",
    ),
    (
        {"a": (99,), "b": (200,)},
        {"layout": lo.gates.CuDNNLayout(3, 5)},
        "found 2 vectors that may hold cuDNN's weights, in 'a' (99,), 'b' (200,); expected one: "
        "pass layout={'its name'",
    ),
    (
        {"kernel_ih": (3, 20), "kernel_hh": (5, 20), "recurrent_kernel": (5, 20), "bias": (20,)},
        {},
        "'bias' matches two layouts: pass the right one as layout=",
    ),
    (GRU, {"layout": "pytorch"}, "layout is 'pytorch'; expected one of lstm_optax, flax, keras"),
    (GRU, {"layout": {"": "tensorflow"}}, "layout is 'tensorflow'; expected one of"),
    (
        GRU,
        {"layout": {"rnn": None}},
        "layout has the key 'rnn', but no parameter there: 'bias_hh_l0' (15,)",
    ),
    (
        GRU,
        {"layout": {"": "keras"}},
        "there is no LSTM of layout 'keras' at '': 'bias_hh_l0' (15,)",
    ),
    (
        [(3, 20), (5, 20)],
        {"names": ["a"]},
        "names has 1 leaves; expected one string for each of the 2",
    ),
    (
        [(3, 20), (5, 20)],
        {"names": ["a", "a"]},
        "two leaves have the name 'a': pass different names",
    ),
]


@pytest.mark.parametrize("shapes, arguments, message", BAD, ids=[m[:30] for *_, m in BAD])
def test_errors_name_leaf_and_remedy(shapes, arguments, message):
    tree = jax.tree.map(
        lambda shape: SPEC(shape, jnp.float32), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        find_gates(tree, **arguments)
