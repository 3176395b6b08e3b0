"""Where the gates of every library's LSTM are found, and what is said where that is not clear."""

import re
from functools import partial

import jax
import jax.experimental.rnn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from layouts_table import LAYOUTS, H, N, as_lstm_params, run

import lstm_optax as lo
from lstm_optax import find_gates
from lstm_optax.gates import GATES, KINDS

every_layout = pytest.mark.parametrize("name", LAYOUTS)
X = np.random.default_rng(7).normal(size=(4, 2, N)).astype(np.float32)


def found_in(name, params=None):
    layout = LAYOUTS[name]
    return find_gates(layout.params() if params is None else params, **layout.arguments)


@every_layout
def test_every_gate_of_every_cell_is_found(name):
    layout = LAYOUTS[name]
    found = {}
    for block in found_in(name).blocks:
        cell = block.lstm, block.layer, block.direction
        found.setdefault(cell, []).append((block.kind, block.gate))
    assert set(found) == set(layout.cells)
    times = {"kernel_ih": 1, "kernel_hh": 1, "bias": layout.biases}
    expected = sorted((kind, gate) for kind in KINDS for gate in GATES for _ in range(times[kind]))
    assert all(sorted(blocks) == expected for blocks in found.values())


@every_layout
def test_blocks_cover_every_entry_once(name):
    params = LAYOUTS[name].params()
    counts = jax.tree.map(lambda x: np.zeros(x.shape, int), params)
    of_path = dict(jax.tree_util.tree_flatten_with_path(counts)[0])
    for block in found_in(name).blocks:
        of_path[block.path][block.index] += 1
    assert all(np.all(count == 1) for count in of_path.values())


FUSED = [name for name in LAYOUTS if name not in ("cuDNN", "Flax Linen", "Flax NNX, LSTMCell")]


@pytest.mark.parametrize("name", FUSED)
def test_gates_lie_in_the_order_of_their_library(name):
    """i, f, g, o everywhere but in Haiku, which also adds 1 to f itself."""
    order = ("input", "cell", "forget", "output") if name == "Haiku" else GATES
    shapes = jax.tree_util.tree_flatten_with_path(LAYOUTS[name].params())[0]
    shapes = {path: leaf.shape for path, leaf in shapes}
    for block in found_in(name).blocks:
        axis = shapes[block.path].index(4 * H)
        start = order.index(block.gate) * H
        assert block.index[axis] == slice(start, start + H)
        adds = name == "Haiku" and (block.kind, block.gate) == ("bias", "forget")
        assert block.added == (1.0 if adds else 0.0)


@every_layout
def test_only_shapes_are_read(name):
    params, expected = LAYOUTS[name].params(), found_in(name)
    assert found_in(name, jax.eval_shape(lambda: params)) == expected

    @jax.jit
    def traced(params):
        assert found_in(name, params) == expected

    traced(params)


@pytest.mark.slow
@every_layout
def test_map_reads_and_writes_blocks_in_one_layout(name):
    """What is put is what is taken, kernels as [inputs, hidden]; the identity changes nothing."""
    layout = LAYOUTS[name]
    params, found = layout.params(), found_in(name)
    same = found.map(lambda block, x: x, params)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    shapes = {"kernel_ih": {(N, H), (2 * H, H)}, "kernel_hh": {(H, H)}, "bias": {(H,)}}

    def number(block, x):
        assert x.shape in shapes[block.kind]
        return jnp.full_like(x, GATES.index(block.gate) + 1)

    numbered = found.map(number, params)
    for cell in as_lstm_params(numbered, found).values():
        for gate in GATES:
            kernel = cell.kernel_hh[:, lo.gate_slice(gate, H)]
            np.testing.assert_array_equal(kernel, GATES.index(gate) + 1)


def test_the_layer_of_this_library(key):
    lstm = lo.LSTM(N, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    state = nnx.state({"encoder": lstm, "head": nnx.Linear(2 * H, 4, rngs=nnx.Rngs(1))}, nnx.Param)
    cells = as_lstm_params(state, find_gates(state))
    expected = {("encoder", n, way) for n in range(2) for way in ("forward", "backward")}
    assert set(cells) == expected
    ordered = [cells["encoder", n, way] for n in range(2) for way in ("forward", "backward")]
    jax.tree.map(np.testing.assert_array_equal, tuple(ordered), lstm.params())
    assert {b.lstm for b in find_gates(lstm.params()).blocks} == {"0", "1", "2", "3"}


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_flax_nnx_computes_with_these_gates(cell):
    forward = nnx.RNN(cell(N, H, rngs=nnx.Rngs(0)), time_major=True)
    backward = nnx.RNN(cell(N, H, rngs=nnx.Rngs(1)), time_major=True)
    both = nnx.Bidirectional(forward, backward, time_major=True)
    state = _perturbed(nnx.state(both, nnx.Param))
    nnx.update(both, state)
    with jax.numpy_rank_promotion("allow"):
        theirs = both(X)
    cells = as_lstm_params(state, find_gates(state))
    ours = [run(p, X, reverse=way == "backward") for (_, _, way), p in sorted(cells.items())[::-1]]
    np.testing.assert_allclose(jnp.concatenate(ours, -1), theirs, atol=1e-6)


@pytest.mark.parametrize("cell", [linen.LSTMCell, linen.OptimizedLSTMCell])
def test_flax_linen_computes_with_these_gates(cell, key):
    rnn = linen.RNN(cell(H), time_major=True)
    variables = _perturbed(rnn.init(key, X))
    with jax.numpy_rank_promotion("allow"):
        theirs = rnn.apply(variables, X)
    (ours,) = as_lstm_params(variables, find_gates(variables)).values()
    np.testing.assert_allclose(run(ours, X), theirs, atol=1e-6)


def test_the_flat_vector_of_cudnn_is_cut_as_jax_cuts_it():
    layout = LAYOUTS["cuDNN"]
    sizes, params = tuple(layout.arguments["layout"]), layout.params()
    kernels_ih, kernels_hh, biases_ih, biases_hh = jax.experimental.rnn.unpack_lstm_weights(
        params["lstm"], *sizes
    )
    cells = as_lstm_params(params, found_in("cuDNN"))
    for i, cell in enumerate(LAYOUTS["cuDNN"].cells):
        np.testing.assert_array_equal(cells[cell].kernel_ih, kernels_ih[i].T)
        np.testing.assert_array_equal(cells[cell].kernel_hh, kernels_hh[i].T)
        np.testing.assert_array_equal(cells[cell].bias, biases_ih[i] + biases_hh[i])
    one = find_gates(jnp.zeros(4 * (N * H + H * H + 2 * H)), layout=lo.gates.CuDNNLayout(N, H))
    assert {block.lstm for block in one.blocks} == {""}


def _perturbed(tree):
    """Every entry different, biases too."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), tree)


def test_masked_leaves_are_passed_over():
    params = LAYOUTS["PyTorch, LSTM"].params()
    masked = params | {"lstm.bias_ih_l0": optax.MaskedNode(), "lstm.weight_ih_l0": None}
    left = found_in("PyTorch, LSTM").parts
    kept = {name for name, leaf in params.items() if masked[name] is leaf}
    found = find_gates(masked)
    assert found.parts == tuple(part for part in left if part.path[0].key in kept)


@pytest.mark.parametrize("masked", [None, optax.MaskedNode()])
def test_what_is_masked_still_has_its_name(masked):
    """So the biases that are left are known for an LSTM's."""
    ours = lo.LSTMParams(masked, masked, LAYOUTS["LSTMParams"].params().bias)
    flax = LAYOUTS["Flax Linen"].params()["params"]
    cell = {name: {leaf: masked for leaf in module} for name, module in flax["cell"].items()}
    cell["hf"]["bias"] = flax["cell"]["hf"]["bias"]
    for params, gates in ((ours, GATES), ({"cell": cell}, ("forget",))):
        found = [(block.kind, block.gate) for block in find_gates(params).blocks]
        assert found == [("bias", gate) for gate in gates]


def test_a_layout_may_be_told():
    both = LAYOUTS["Equinox"].params()
    tree = {
        "actor": both,
        "critic": both,
        "memory/linear": LAYOUTS["Haiku"].params()["lstm/linear"],
    }

    def lstms(layout):
        return {block.lstm for block in find_gates(tree, layout=layout).blocks}

    assert lstms({"memory": None}) == {"actor", "critic"}
    assert lstms({"memory": "haiku", "actor": None}) == {"critic", "memory"}
    assert lstms("equinox") == {"actor", "critic"}
    no_kernel = {"weight_ih_l0": jnp.zeros((4 * H, N)), "bias_ih_l0": jnp.zeros(4 * H)}
    assert len(find_gates(no_kernel, layout="torch").parts) == 2


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
        "'rnn/kernel_hh' has the name of an LSTM's parameter, but shape (5, 18); expected "
        "(hidden, 4·hidden); if it belongs to no LSTM, leave it out by layout={'rnn': None}",
    ),
    (
        {"kernel": (3, 24), "recurrent_kernel": (5, 20)},
        {},
        "'kernel' has the name of an LSTM's parameter, but shape (3, 24); expected (inputs, 20)",
    ),
    (
        {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (19,)},
        {},
        "'bias' has the name of an LSTM's parameter, but shape (19,); expected (20,)",
    ),
    ({"weight_ih": (20, 3), "weight_hh": (2, 20, 5)}, {}, "'weight_hh' has the name of an LSTM's"),
    (
        {"a": {"weight_ih_l0": (24, 3), "bias_ih_l0": (24,)}},
        {},
        "'a/weight_ih_l0' may be an LSTM's, but the recurrent kernel that would tell is not in the "
        "tree: say that it belongs to one by layout={'a': 'torch'}, or leave it out by "
        "layout={'a': None}",
    ),
    (
        {"weight_ih_l0": (22, 3)},
        {"layout": "torch"},
        "'weight_ih_l0' has the name of an LSTM's parameter, but shape (22, 3); expected a",
    ),
    (
        {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 2), "weight_hr_l0": (2, 5)},
        {},
        "'weight_hr_l0' is a projection (proj_size > 0)",
    ),
    (
        {"memory/linear": {"w": (8, 20), "b": (20,)}},
        {},
        "'memory/linear/w' has the shape that an LSTM of Haiku has, and a Linear may have: say "
        "that it belongs to one by layout={'memory': 'haiku'}, or leave it out by",
    ),
    (
        {"lstm/linear": {"w": (5, 20), "b": (20,)}},
        {},
        "'lstm/linear/w' has the name of an LSTM's parameter, but shape (5, 20); expected "
        "(inputs + hidden, 4·hidden)",
    ),
    ({"lstm/linear": {"w": (8, 20), "b": (16,)}}, {}, "'lstm/linear/b' has the name"),
    (
        {f"h{gate}": {"kernel": (5, 5)} for gate in "ifgo"} | {"ii": {"kernel": (3, 5)}},
        {},
        "the LSTM cell at '' has no if, ig, io; give the whole cell, or leave it out by",
    ),
    (
        {
            k + gate: {"kernel": (5, 4) if k + gate == "ho" else (5, 5)}
            for gate in "ifgo"
            for k in "ih"
        },
        {},
        "'ho/kernel' has the name of an LSTM's parameter, but shape (5, 4); expected (inputs, 5)",
    ),
    (
        {k + gate: {"kernel": (3, 5)} for gate in "ifgo" for k in "ih"},
        {},
        "'hf/kernel' has the name of an LSTM's parameter, but shape (3, 5); expected (5, 5)",
    ),
    (
        {"w": (99,)},
        {"layout": lo.gates.CuDNNLayout(3, 5)},
        "'w' has shape (99,); expected (200,) for",
    ),
    (
        {"a": (99,), "b": (200,)},
        {"layout": lo.gates.CuDNNLayout(3, 5)},
        "2 vectors may be cuDNN's, of 'a' (99,), 'b' (200,); name the one by layout={'its name'",
    ),
    (
        {"kernel_ih": (3, 20), "kernel_hh": (5, 20), "recurrent_kernel": (5, 20), "bias": (20,)},
        {},
        "'bias' fits two layouts: name the right one by layout=",
    ),
    (GRU, {"layout": "pytorch"}, "layout is 'pytorch'; expected one of lstm_optax, flax, keras"),
    (GRU, {"layout": {"": "tensorflow"}}, "layout is 'tensorflow'; expected one of"),
    (GRU, {"layout": {"rnn": None}}, "layout names 'rnn', where nothing is: 'bias_hh_l0' (15,)"),
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
    ([(3, 20), (5, 20)], {"names": ["a", "a"]}, "two leaves have the name 'a': give each its own"),
]


@pytest.mark.parametrize("shapes, arguments, message", BAD, ids=[m[:30] for *_, m in BAD])
def test_what_is_not_clear_is_an_error_that_says_what_to_do(shapes, arguments, message):
    tree = jax.tree.map(
        lambda shape: SPEC(shape, jnp.float32), shapes, is_leaf=lambda node: isinstance(node, tuple)
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        find_gates(tree, **arguments)


CELLS = {
    "nnx.GRUCell": nnx.GRUCell,
    "nnx.SimpleCell": nnx.SimpleCell,
    "linen.GRUCell": linen.GRUCell,
    "linen.MGUCell": linen.MGUCell,
    "linen.SimpleCell": linen.SimpleCell,
}


@pytest.mark.parametrize("cell", CELLS)
def test_other_cells_are_no_lstms(cell, key):
    make = CELLS[cell]
    if cell.startswith("nnx"):
        params = nnx.state(make(N, H, rngs=nnx.Rngs(0)), nnx.Param)
    else:
        params = jax.eval_shape(partial(linen.RNN(make(H)).init, key), X)
    with pytest.raises(ValueError, match="there is no LSTM"):
        find_gates(params)
    lstm = LAYOUTS["Equinox"].params()
    assert {b.lstm for b in find_gates({"lstm": lstm, "gru": params}).blocks} == {"lstm"}
