"""`find_gates` on the parameters of every library, and its errors."""

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
def test_finds_every_gate_of_every_cell(name):
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


STACKED = [name for name in LAYOUTS if name not in ("cuDNN", "Flax Linen", "Flax NNX, LSTMCell")]


@pytest.mark.parametrize("name", STACKED)
def test_gates_have_their_library_order(name):
    """i, f, g, o everywhere except in Haiku, which also adds 1 to f."""
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
def test_reads_only_shapes(name):
    params, expected = LAYOUTS[name].params(), found_in(name)
    assert found_in(name, jax.eval_shape(lambda: params)) == expected

    @jax.jit
    def traced(params):
        assert found_in(name, params) == expected

    traced(params)


@pytest.mark.slow
@every_layout
def test_map_uses_one_block_layout(name):
    """Blocks are written as they are read, kernels as [inputs, hidden]."""
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


def test_finds_layers_of_this_library(key):
    lstm = lo.LSTM(N, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    state = nnx.state({"encoder": lstm, "head": nnx.Linear(2 * H, 4, rngs=nnx.Rngs(1))}, nnx.Param)
    cells = as_lstm_params(state, find_gates(state))
    expected = {("encoder", n, way) for n in range(2) for way in ("forward", "backward")}
    assert set(cells) == expected
    ordered = [cells["encoder", n, way] for n in range(2) for way in ("forward", "backward")]
    jax.tree.map(np.testing.assert_array_equal, tuple(ordered), lstm.params())
    assert {b.lstm for b in find_gates(lstm.params()).blocks} == {"0", "1", "2", "3"}


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell])
def test_flax_nnx_output_matches_gates(cell):
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
def test_flax_linen_output_matches_gates(cell, key):
    rnn = linen.RNN(cell(H), time_major=True)
    variables = _perturbed(rnn.init(key, X))
    with jax.numpy_rank_promotion("allow"):
        theirs = rnn.apply(variables, X)
    (ours,) = as_lstm_params(variables, find_gates(variables)).values()
    np.testing.assert_allclose(run(ours, X), theirs, atol=1e-6)


def test_cudnn_vector_matches_jax_unpacking():
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
    """Return the tree with every entry different, including biases."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), tree)


def test_skips_masked_leaves():
    params = LAYOUTS["PyTorch, LSTM"].params()
    masked = params | {"lstm.bias_ih_l0": optax.MaskedNode(), "lstm.weight_ih_l0": None}
    left = found_in("PyTorch, LSTM").parts
    kept = {name for name, leaf in params.items() if masked[name] is leaf}
    found = find_gates(masked)
    assert found.parts == tuple(part for part in left if part.path[0].key in kept)


@pytest.mark.parametrize("masked", [None, optax.MaskedNode()])
def test_masked_leaves_identify_the_lstm(masked):
    """Biases are recognised if the kernels of their cell are masked."""
    ours = lo.LSTMParams(masked, masked, LAYOUTS["LSTMParams"].params().bias)
    flax = LAYOUTS["Flax Linen"].params()["params"]
    cell = {name: {leaf: masked for leaf in module} for name, module in flax["cell"].items()}
    cell["hf"]["bias"] = flax["cell"]["hf"]["bias"]
    for params, gates in ((ours, GATES), ({"cell": cell}, ("forget",))):
        found = [(block.kind, block.gate) for block in find_gates(params).blocks]
        assert found == [("bias", gate) for gate in gates]


def test_layout_argument_selects_lstms():
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


CELLS = {
    "nnx.GRUCell": nnx.GRUCell,
    "nnx.SimpleCell": nnx.SimpleCell,
    "linen.GRUCell": linen.GRUCell,
    "linen.MGUCell": linen.MGUCell,
    "linen.SimpleCell": linen.SimpleCell,
}


@pytest.mark.parametrize("cell", CELLS)
def test_ignores_other_cells(cell, key):
    make = CELLS[cell]
    if cell.startswith("nnx"):
        params = nnx.state(make(N, H, rngs=nnx.Rngs(0)), nnx.Param)
    else:
        params = jax.eval_shape(partial(linen.RNN(make(H)).init, key), X)
    with pytest.raises(ValueError, match="there is no LSTM"):
        find_gates(params)
    lstm = LAYOUTS["Equinox"].params()
    assert {b.lstm for b in find_gates({"lstm": lstm, "gru": params}).blocks} == {"lstm"}
