"""Flax's cells here, and the layer in Flax: same outputs, gradients and training steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from lstm_optax import LSTM, LSTMParams, LSTMState, lstm_sequence
from lstm_optax.interop import (
    lstm_from_flax,
    lstm_params_from_flax,
    lstm_params_to_flax,
    lstm_to_flax,
)

T, B, F, H = 5, 3, 2, 4
LENGTHS = np.array([5, 2, 4])
ALIVE = (np.arange(T)[:, None] < LENGTHS)[:, :, None]
NNX = (nnx.OptimizedLSTMCell, nnx.LSTMCell)
LINEN = (linen.OptimizedLSTMCell, linen.LSTMCell)


@pytest.fixture(autouse=True)
def flax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / 2)


def inputs():
    return draw(T, B, F, seed=1), (draw(B, H, seed=2), draw(B, H, seed=3))


def drawn(tree, seed=0):
    """Return the tree with random entries, also for the biases."""
    leaves, structure = jax.tree.flatten(tree)
    new = [
        draw(*leaf.shape, seed=100 * seed + i).astype(leaf.dtype) for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, new)


def nnx_cell(kind, features=F, seed=0, **options):
    cell = kind(features, H, param_dtype=jnp.result_type(float), **options, rngs=nnx.Rngs(seed))
    return drawn(cell, seed)


def loss_of(outputs, ends):
    outputs = jnp.where(ALIVE, outputs, 0)  # Flax continues in the padding
    return jnp.sum(jnp.sin(outputs)) + sum(jnp.sum(jnp.cos(end)) for end in ends)


def our_loss(tree, x, carry):
    c, h = carry
    outputs, end = lstm_sequence(
        lstm_params_from_flax(tree), x, LSTMState(h=h, c=c), seq_lengths=LENGTHS
    )
    return loss_of(outputs, (end.c, end.h))


def nnx_case(kind):
    graph, tree = nnx.split(nnx_cell(kind))

    def loss(tree, x, carry):
        rnn = nnx.RNN(nnx.merge(graph, tree), time_major=True, return_carry=True, rngs=False)
        ends, outputs = rnn(x, initial_carry=carry, seq_lengths=LENGTHS)
        return loss_of(outputs, ends)

    return tree, loss


def linen_case(kind):
    rnn = linen.RNN(kind(H, param_dtype=jnp.result_type(float)), time_major=True, return_carry=True)
    tree = drawn(rnn.init(jax.random.key(0), inputs()[0])["params"]["cell"])

    def loss(tree, x, carry):
        variables = {"params": {"cell": tree}}
        ends, outputs = rnn.apply(variables, x, initial_carry=carry, seq_lengths=LENGTHS)
        return loss_of(outputs, ends)

    return tree, loss


def case_of(kind):
    return nnx_case(kind) if kind in NNX else linen_case(kind)


def by_kind(*plain):
    """Parametrize over all kinds of cells; most are slow tests."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(kind, marks=() if kind in plain else pytest.mark.slow)
            for kind in (*NNX, *LINEN)
        ],
        ids=["nnx.OptimizedLSTMCell", "nnx.LSTMCell", "linen.OptimizedLSTMCell", "linen.LSTMCell"],
    )


@by_kind(NNX[0])
def test_outputs_and_gradients_equal_flax(kind, x64):
    """With lengths; gradients of Flax's own parameters, the inputs and the carry."""
    tree, their_loss = case_of(kind)
    theirs, ours = (
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(tree, *inputs())
        for loss in (their_loss, our_loss)
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(theirs))


@by_kind()
def test_training_step_equals_flax(kind, x64):
    """The parameters are trained in this library's shapes and converted back to Flax."""
    tree, their_loss = case_of(kind)
    x, carry = inputs()
    tx = optax.adam(0.1)

    def run(loss, params):
        def step(held, _):
            params, state = held
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, 3)[0][0])(params)

    theirs = run(lambda tree: their_loss(tree, x, carry), tree)
    ours = run(
        lambda p: our_loss(lstm_params_to_flax(p, tree), x, carry), lstm_params_from_flax(tree)
    )
    chex.assert_trees_all_close(lstm_params_to_flax(ours, tree), theirs, rtol=1e-11)


@by_kind(*NNX, *LINEN)
def test_flax_round_trip_is_exact(kind):
    tree, _ = case_of(kind)
    params = lstm_params_from_flax(tree)
    assert jax.tree.map(jnp.shape, params) == LSTMParams((F, 4 * H), (H, 4 * H), (4 * H,))
    assert all(isinstance(array, jax.Array) for array in params)
    back = lstm_params_to_flax(params, tree)
    chex.assert_trees_all_equal(back, tree)
    chex.assert_trees_all_equal(lstm_params_from_flax(back), params)
    shapes = jax.eval_shape(lambda: tree)
    chex.assert_trees_all_equal(lstm_params_to_flax(params, shapes), tree)


@pytest.mark.parametrize("kind", NNX)
def test_module_equals_its_parameters(kind):
    """For a cell, an RNN, its state and its plain dictionary; the result is a new module."""
    cell = nnx_cell(kind)
    rnn, state = nnx.RNN(cell), nnx.state(cell, nnx.Param)
    params = lstm_params_from_flax(cell)
    for same in (rnn, state, nnx.to_pure_dict(state)):
        chex.assert_trees_all_equal(lstm_params_from_flax(same), params)
    doubled = jax.tree.map(lambda p: 2 * p, params)
    for module, convert in (
        (cell, lstm_params_to_flax),
        (rnn, lstm_params_to_flax),
        (rnn, jax.jit(lstm_params_to_flax)),
    ):
        new = convert(doubled, module)
        assert type(new) is type(module) and new is not module
        chex.assert_trees_all_equal(lstm_params_from_flax(new), doubled)
        chex.assert_trees_all_equal(lstm_params_from_flax(module), params)


def test_cell_may_have_random_streams():
    """The streams stay in the new cell."""
    with pytest.warns(UserWarning, match="keep_rngs"):
        cell = nnx.OptimizedLSTMCell(F, H, keep_rngs=True, rngs=nnx.Rngs(0))
    params = jax.tree.map(lambda p: 2 * p, lstm_params_from_flax(cell))
    new = lstm_params_to_flax(params, cell)
    chex.assert_trees_all_equal(lstm_params_from_flax(new), params)
    assert new.rngs.key[...] == cell.rngs.key[...]


def test_linen_boxes_are_kept():
    """Boxes hold metadata such as the axis names of a mesh."""
    init = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "model"))
    cell = linen.OptimizedLSTMCell(H, kernel_init=init)
    tree = cell.init(jax.random.key(0), (jnp.zeros((B, H)),) * 2, jnp.zeros((B, F)))["params"]
    plain = linen.meta.unbox(tree)
    params = lstm_params_from_flax(tree)
    chex.assert_trees_all_equal(params, lstm_params_from_flax(plain))
    back = lstm_params_to_flax(params, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert back["if"]["kernel"].names == (None, "model")


@pytest.fixture(scope="module")
def stack():
    """Two bidirectional Flax layers."""
    with jax.enable_x64(True):
        cells = [
            [nnx_cell(kind, features, seed) for seed in (2 * i, 2 * i + 1)]
            for i, (kind, features) in enumerate(zip(NNX, (F, 2 * H), strict=True))
        ]
        return [nnx.Bidirectional(*map(nnx.RNN, pair), time_major=True) for pair in cells]


@pytest.mark.slow
def test_bidirectional_stack_equals_flax(stack, x64):
    """Values, final states and gradients of Flax's modules, with lengths."""
    x, _ = inputs()
    zero = (jnp.zeros((B, H)),) * 2

    def theirs(stack):
        outputs, ends = x, []
        for layer in stack:
            pair, outputs = layer(
                outputs, initial_carry=(zero, zero), seq_lengths=LENGTHS, return_carry=True
            )
            ends += [end for carry in pair for end in carry]
        return loss_of(outputs, ends), (jnp.where(ALIVE, outputs, 0), ends)

    def ours(stack):
        outputs, carry = lstm_from_flax(stack)(x, seq_lengths=LENGTHS)
        ends = [end for state in carry for end in (state.c, state.h)]
        return loss_of(outputs, ends), (outputs, ends)

    stack = nnx.List(stack)
    found, expected = (nnx.jit(nnx.grad(loss, has_aux=True))(stack) for loss in (ours, theirs))
    chex.assert_trees_all_close(
        *(jax.tree.leaves(result) for result in (found, expected)), rtol=1e-11, atol=1e-13
    )
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found[0]))


def test_layer_has_time_axis_of_rnn(stack, x64):
    """Time axis and dtype are those of the RNN and its cells, unless given as options."""
    cell = nnx_cell(nnx.OptimizedLSTMCell, dtype=jnp.bfloat16)
    lstm = lstm_from_flax(nnx.RNN(cell))
    assert not lstm.time_major and lstm.dtype == jnp.bfloat16
    assert lstm_from_flax(cell).time_major
    lstm = lstm_from_flax([nnx.RNN(cell)], time_major=True, dtype=jnp.float32, weight_dropout=0.5)
    assert lstm.time_major and lstm.dtype == jnp.float32 and lstm.weight_dropout.rate == 0.5
    both = lstm_from_flax(stack)
    assert both.directions == ("forward", "backward") and both.time_major
    in_order = [rnn.cell for layer in stack for rnn in (layer.forward_rnn, layer.backward_rnn)]
    chex.assert_trees_all_equal(both.params(), tuple(map(lstm_params_from_flax, in_order)))
    pair = lstm_from_flax([cell, nnx.clone(cell)], bidirectional=True)
    assert pair.directions == ("forward", "backward")
    tree = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    chex.assert_trees_all_equal(lstm_from_flax(tree).params(), lstm_from_flax(cell).params())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layer_round_trip_through_flax(bidirectional):
    lstm = LSTM(F, H, num_layers=2, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    cells = lstm_to_flax(lstm)
    assert {type(cell) for cell in cells} == {nnx.OptimizedLSTMCell}
    assert [cell.in_features for cell in cells[:: 1 + bidirectional]] == [
        F,
        H * (1 + bidirectional),
    ]
    again = lstm_from_flax(cells, bidirectional=bidirectional)
    chex.assert_trees_all_equal(again.params(), lstm.params())
    assert again.dtype == lstm.dtype == cells[0].dtype
    x = inputs()[0].astype(jnp.float32)
    first, _ = lstm_sequence(lstm.params()[0], x)
    rnn = nnx.RNN(cells[0], time_major=True)
    chex.assert_trees_all_close(rnn(x), first, rtol=1e-5, atol=1e-6)


class OwnRNN(nnx.RNN):
    """A subclass, which may compute anything."""


class OwnBidirectional(nnx.Bidirectional):
    """A subclass, which may merge the directions in any way."""


def with_attribute(kind, part=None, **attributes):
    """Return a cell with non-default attributes, of the cell or of one of its parts."""
    cell = nnx_cell(kind)
    for name, value in attributes.items():
        setattr(getattr(cell, part) if part else cell, name, value)
    return cell


def linen_parameters(cell, shape):
    carry = cell.initialize_carry(jax.random.key(0), shape)
    return cell.init(jax.random.key(0), carry, jnp.zeros(shape))["params"]


def test_zero_carry_init_is_accepted():
    cell = with_attribute(nnx.LSTMCell, carry_init=nnx.initializers.zeros_init())
    assert lstm_from_flax(cell).params()[0].kernel_ih.shape == (F, 4 * H)


class LinenReader(linen.Module):
    """A module that reads the parameters of a Linen cell inside `apply`."""

    cell: linen.Module

    def __call__(self, x):
        if self.is_initializing():
            self.cell(self.cell.initialize_carry(jax.random.key(0), x.shape), x)
        return lstm_params_from_flax(self.cell)


@pytest.mark.parametrize("kind", LINEN)
def test_bound_linen_cell_is_accepted(kind):
    """The parameters are read if the attributes are the defaults."""
    x = jnp.zeros((B, F))
    reader = LinenReader(kind(H, kernel_init=linen.initializers.ones))
    variables = reader.init(jax.random.key(0), x)
    expected = lstm_params_from_flax(variables["params"]["cell"])
    chex.assert_trees_all_equal(reader.apply(variables, x), expected)
    for name, value in (
        ("carry_init", linen.initializers.ones),
        ("gate_fn", linen.hard_sigmoid),
        ("activation_fn", linen.relu),
    ):
        other = LinenReader(kind(H, **{name: value}))
        with pytest.raises(ValueError, match=f"{name} of this {kind.__name__} is"):
            other.apply(variables, x)


class Own(nnx.OptimizedLSTMCell):
    """A subclass, which may compute anything."""


def without(tree, *names):
    return {name: value for name, value in tree.items() if name not in names}


APART = lstm_params_to_flax(
    LSTM(F, H, rngs=nnx.Rngs(0)).params()[0],
    {
        f"{kind}{gate}": {"kernel": np.ones((rows, H))} | ({"bias": np.ones(H)} if bias else {})
        for kind, rows, bias in (("i", F, False), ("h", H, True))
        for gate in "ifgo"
    },
)
FUSED = {"dense_i": {"kernel": np.ones((F, 16))}}
FUSED["dense_h"] = {"kernel": np.ones((H, 16)), "bias": np.ones(16)}


@pytest.mark.parametrize(
    "cell, message",
    [
        (lambda: nnx.GRUCell(F, H, rngs=nnx.Rngs(0)), "this is a GRUCell; expected an LSTMC"),
        (lambda: nnx.RNN(nnx.SimpleCell(F, H, rngs=nnx.Rngs(0))), "this is a SimpleCell"),
        (lambda: Own(F, H, rngs=nnx.Rngs(0)), r"this is a Own; .* nnx.state\(cell, nnx.Para"),
        (
            lambda: nnx_cell(nnx.LSTMCell, gate_fn=nnx.hard_sigmoid),
            "gate_fn of this LSTMCell is hard_sigmoid; this LSTM has only the default, sigmoid",
        ),
        (
            lambda: nnx_cell(nnx.LSTMCell, activation_fn=nnx.relu),
            "activation_fn .* only the default, tanh",
        ),
        (
            lambda: with_attribute(nnx.OptimizedLSTMCell, carry_init=nnx.initializers.ones_init()),
            "carry_init of this OptimizedLSTMCell is ones; this LSTM has only the default, None",
        ),
        (
            lambda: nnx.RNN(with_attribute(nnx.LSTMCell, carry_init=nnx.initializers.normal())),
            "carry_init of this LSTMCell is init",
        ),
        (
            lambda: with_attribute(nnx.LSTMCell, promote_dtype=lambda arrays, dtype: arrays),
            "promote_dtype of this LSTMCell is <lambda>",
        ),
        (
            lambda: with_attribute(nnx.LSTMCell, "hf", precision=jax.lax.Precision.HIGHEST),
            "precision of hf of this LSTMCell is HIGHEST; this LSTM has only the default, None",
        ),
        (
            lambda: with_attribute(nnx.OptimizedLSTMCell, "dense_i", dot_general=jnp.dot),
            "dot_general of dense_i of this OptimizedLSTMCell is dot",
        ),
        (
            lambda: with_attribute(
                nnx.OptimizedLSTMCell, "dense_h", preferred_element_type=jnp.bfloat16
            ),
            "preferred_element_type of dense_h .* is bfloat16",
        ),
        (
            lambda: with_attribute(
                nnx.OptimizedLSTMCell, dense_i=nnx.Einsum("ij,jk->ik", (F, 16), rngs=nnx.Rngs(0))
            ),
            "dense_i of this OptimizedLSTMCell is a Einsum; expected an nnx.Linear",
        ),
        (
            lambda: OwnRNN(nnx_cell(nnx.LSTMCell)),
            "this is a OwnRNN; expected an nnx.RNN, or its cell",
        ),
        (lambda: linen.LSTMCell(H), "this LSTMCell of Linen has no parameters here; expected arr"),
        (lambda: linen.GRUCell(H), "this is a GRUCell; expected an LSTMCell or OptimizedLSTMCell"),
        (lambda: linen.ConvLSTMCell(H, (3,)), "this is a ConvLSTMCell; expected an LSTMCell"),
        (lambda: linen_parameters(linen.ConvLSTMCell(H, (3,)), (B, 5, F)), "i/kernel is missing"),
        (
            lambda: linen_parameters(linen.GRUCell(H), (B, F)),
            "i/kernel is missing; there are",
        ),
        (lambda: {}, "[hi]i/kernel is missing; there are no names"),
        (lambda: {"cell": APART}, r"[hi]i/kernel is missing; there are \['cell/hf/bias'"),
        (lambda: without(APART, "ig"), "ig/kernel is missing"),
        (lambda: APART | {"if": {"kernel": np.ones((F, 3))}}, r"if/kernel has shape .* \(2, 4\)"),
        (lambda: APART | {"hg": {"kernel": np.ones((H, H))}}, "hg/bias is missing"),
        (lambda: APART | {"in": {"kernel": np.ones((F, H))}}, "no 'in/kernel'; it has"),
        (lambda: without(FUSED, "dense_i"), "dense_i/kernel is missing"),
        (lambda: FUSED | {"dense_i": {"kernel": np.ones(16)}}, r"dense_i/kernel has shape \(16,\)"),
        (
            lambda: FUSED | {"dense_h": {"kernel": np.ones((H, 12)), "bias": np.ones(12)}},
            r"dense_h/kernel has shape \(4, 12\); expected \(4, 16\)",
        ),
    ],
)
def test_rejects_other_flax_cell(cell, message):
    params = LSTM(F, H, rngs=nnx.Rngs(0)).params()[0]
    given = cell()
    for convert in (lstm_params_from_flax, lambda cell: lstm_params_to_flax(params, cell)):
        with pytest.raises(ValueError, match=message):
            convert(given)


@pytest.mark.parametrize(
    "params, message",
    [
        (
            LSTM(3, H, rngs=nnx.Rngs(0)).params()[0],
            r"dense_i/kernel .*\(2, 16\); expected \(3, 16\)",
        ),
        (LSTM(F, H, rngs=nnx.Rngs(0)).params(), "params is a tuple; expected an LSTMParams"),
        (LSTMParams(np.ones((F, 16)), np.ones((H, 12)), np.ones(16)), "kernel_hh has shape"),
        (LSTMParams(np.ones((F, 16)), np.ones((H, 16)), np.ones(4)), r"bias .* expected \(16,\)"),
    ],
)
def test_to_flax_rejects_wrong_sizes(params, message):
    with pytest.raises(ValueError, match=message):
        lstm_params_to_flax(params, FUSED)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda c: [nnx.RNN(c), nnx.RNN(c, time_major=True)], "time_major of the layers is"),
        (lambda c: [c, nnx_cell(nnx.LSTMCell, H, dtype=jnp.bfloat16)], "dtype of the layers is"),
        (lambda c: nnx.RNN(c, reverse=True), "forward direction has reverse=True"),
        (lambda c: [nnx.Bidirectional(*[nnx.RNN(c)] * 2), c], "1 of 2 layers are nnx.Bidirec"),
        (
            lambda c: nnx.Bidirectional(*[nnx.RNN(c)] * 2, merge_fn=jnp.add),
            "merge_fn is not the default",
        ),
        (
            lambda c: OwnBidirectional(nnx.RNN(c), nnx.RNN(nnx.clone(c))),
            "got a OwnBidirectional; expected nnx.Bidirectional itself",
        ),
        (lambda c: [c, c], "one cell occurs twice, so both layers share its parameters"),
        (lambda c: nnx.Bidirectional(*[nnx.RNN(c)] * 2), "one cell occurs twice"),
        (
            lambda c: [c, nnx.clone(c)],
            r"kernel_ih of params\[1\] has shape \(2, 16\); expected \(4, 16\)",
        ),
        (lambda c: [], "got 0 LSTMParams"),
        (lambda c: nnx.Linear(F, H, rngs=nnx.Rngs(0)), "this is a Linear"),
    ],
)
def test_rejects_modules_without_stack(make, message):
    with pytest.raises(ValueError, match=message):
        lstm_from_flax(make(nnx_cell(nnx.LSTMCell)))


@pytest.mark.parametrize(
    "options", [{}, dict(reverse=True), dict(keep_order=True), dict(reverse=True, keep_order=True)]
)
def test_backward_rnn_needs_keep_order(options):
    """This LSTM keeps outputs at their own times; another order is rejected."""
    cells = [nnx_cell(nnx.LSTMCell, seed=seed) for seed in (0, 1)]
    runs = [nnx.RNN(cells[0]), nnx.RNN(cells[1], **options)]
    if len(options) < 2:
        with pytest.raises(ValueError, match="the nnx.RNN of a backward direction has reverse="):
            lstm_from_flax(runs, bidirectional=True)
        return
    x = jnp.float32(draw(B, T, F, seed=1))
    expected = jnp.concatenate([run(x) for run in runs], -1)
    outputs, _ = lstm_from_flax(runs, bidirectional=True)(x)
    chex.assert_trees_all_close(outputs, expected, rtol=1e-5, atol=1e-6)
