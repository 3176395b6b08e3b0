"""Inputs given as rows of a table: equal to the rows themselves, and without their products."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_native import mesh, use  # noqa: F401

from lstm_optax import (
    LSTM,
    CotangentNormClip,
    LanguageModel,
    LSTMParams,
    lstm_sequence,
    token_losses,
)
from lstm_optax.lstm import Lookup
from lstm_optax.lstm.backends.native import missing

needs_native = pytest.mark.skipif(missing() is not None, reason=str(missing()))
BOUND = 5e-6  # of the largest entry: two float32 results


def draw(time=9, batch=6, entries=5, features=3, hidden=4, seed=0):
    """Return params, a table, ids and the numbers that weight the outputs."""
    random = np.random.default_rng(seed)
    shapes = (features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (entries, features)
    *params, table = (np.float32(random.normal(0, 0.5, shape)) for shape in shapes)
    ids = random.integers(0, entries, (time, batch)).astype(np.int32)
    weights = np.float32(random.normal(0, 1, (time, batch, hidden)))
    return LSTMParams(*params), table, ids, weights


def loss(params, table, ids, weights, *, as_rows=False, **options):
    x = Lookup(table, ids)
    outputs, last = lstm_sequence(params, x.rows() if as_rows else x, **options)
    return jnp.sum(weights * outputs) + jnp.sum(last.c)


def run(arguments, **options):
    return jax.jit(jax.value_and_grad(partial(loss, **options), (0, 1)))(*arguments)


def check(found, expected):
    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=BOUND * max(np.abs(b).max(), 1e-3))

    jax.tree.map(compare, jax.device_get(found), jax.device_get(expected))


@needs_native
@pytest.mark.parametrize("instructions", ["avx512", "avx2", "baseline", "neon"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        dict(time=40, batch=70, entries=1, hidden=3),  # sums of 2,800 numbers
        dict(time=2, batch=300, entries=260, features=2, hidden=17),  # rows beyond a vector
        dict(time=1, batch=2, entries=1),
    ],
    ids=["small", "one entry", "many entries", "one step"],
)
def test_equals_rows(instructions, use, shape):  # noqa: F811
    use(instructions)
    arguments = draw(**shape)
    check(run(arguments, backend="native"), run(arguments, backend="fused", as_rows=True))


@needs_native
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gradient", ["stored", "remat"])
def test_equals_rows_with_masks(reverse, gradient):
    """An id in the padding may be any number."""
    params, table, ids, weights = draw()
    lengths = np.array([9, 0, 3, 8, 9, 1])
    resets = np.random.default_rng(1).random(ids.shape) < 0.3
    options = dict(seq_lengths=lengths, resets=resets, reverse=reverse, gradient=gradient)
    options |= dict(cotangent_clip=CotangentNormClip(h=0.5, c=0.5, gates=0.5))
    padding = np.arange(9)[:, None] >= lengths
    found = run((params, table, np.where(padding, 1000, ids), weights), **options)
    check(found, run((params, table, ids, weights), backend="fused", as_rows=True, **options))


@pytest.mark.parametrize("backend", ["fused", "reference", "auto"])
def test_every_backend_takes_a_lookup(backend):
    arguments = draw()
    check(run(arguments, backend=backend), run(arguments, backend="fused", as_rows=True))


@pytest.mark.parametrize("backend", ["fused", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1, -(2**31)])
def test_id_out_of_range_is_nan_from_its_step_on(backend, bad):
    params, table, ids, _ = draw()
    good, _ = lstm_sequence(params, Lookup(table, ids), backend=backend)
    ids[4, 2] = bad
    found, _ = lstm_sequence(params, Lookup(table, ids), backend=backend)
    changed = np.isnan(found)
    assert changed[4:, 2].all() and changed.sum() == changed[4:, 2].size
    np.testing.assert_array_equal(found[~changed], good[~changed])


@needs_native
def test_program_has_no_product_for_each_input():
    """Only table·W_ih and its gradients; with few repeated ids, the rows themselves."""
    arguments = draw(time=20, batch=10, entries=7)
    text = jax.jit(jax.grad(partial(loss, backend="native"), (0, 1))).lower(*arguments).as_text()
    assert "lstm_optax_input_gradient" not in text and "tensor<20x10x3xf32>" not in text
    arguments = draw(time=20, batch=10, entries=101)
    text = jax.jit(partial(loss, backend="native")).lower(*arguments).as_text()
    assert "tensor<20x10x3xf32>" in text


@needs_native
@pytest.mark.parametrize("axes", [(None, None, 0, None), (0, None, None, None), (None, 0, 0, None)])
def test_vmap_equals_rows(axes):
    arguments = [
        a if axis is None else jax.tree.map(lambda leaf: jnp.stack([leaf, leaf // 2, leaf]), a)
        for a, axis in zip(draw(), axes, strict=True)
    ]
    results = [
        jax.jit(jax.vmap(jax.grad(partial(loss, backend=b, as_rows=r), (0, 1)), axes))(*arguments)
        for b, r in (("native", False), ("fused", True))
    ]
    check(*results)


@needs_native
def test_second_derivative_equals_rows():
    params, table, ids, weights = draw()

    def length(params, table, backend, as_rows):
        grads = jax.grad(partial(loss, backend=backend, as_rows=as_rows), (0, 1))
        found = grads(params, table, ids, weights)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(found))

    found, expected = (
        jax.jit(jax.grad(partial(length, backend=b, as_rows=r), (0, 1)))(params, table)
        for b, r in (("native", False), ("fused", True))
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@needs_native
def test_sharded_rows_equal_single(mesh):  # noqa: F811
    arguments = draw(batch=2 * mesh.size)
    rows, whole = NamedSharding(mesh, P(None, "rows")), NamedSharding(mesh, P())
    placed = jax.device_put(arguments, (whole, whole, rows, rows))
    compute = jax.jit(jax.grad(partial(loss, backend="native"), (0, 1)))
    text = compute.lower(*placed).compile().as_text()
    assert "all-gather(" not in text and "lstm_optax_forward" in text
    check(compute(*placed), run(arguments, backend="fused", as_rows=True)[1])

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), *[P(None, "rows")] * 2), out_specs=P())
    def shared(*arguments):  # JAX sums the gradient of what all devices share
        return jax.grad(partial(loss, backend="native"), (0, 1))(*arguments)

    check(shared(*placed), run(arguments, backend="fused", as_rows=True)[1])


@needs_native
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_equals_rows(dtype):
    params, table, ids, weights = draw()
    params, table = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, table))
    found, expected = (
        run((params, table, ids, weights), backend="native", as_rows=r) for r in (False, True)
    )
    chex.assert_trees_all_equal_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=0.02, atol=0.05)


def test_stack_takes_a_lookup_batch_first():
    _, table, ids, _ = draw()
    lstm = LSTM(3, 4, num_layers=2, bidirectional=True, time_major=False, rngs=nnx_rngs())
    x = Lookup(jnp.asarray(table), jnp.asarray(ids))
    found, expected = lstm(x), lstm(x.rows())
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_wrong_features_are_named():
    params, table, ids, _ = draw()
    with pytest.raises(ValueError, match="x has 2 features, but kernel_ih"):
        lstm_sequence(params, Lookup(table[:, :2], ids))


@pytest.mark.parametrize(
    "table, ids, message",
    [
        (np.zeros((5, 3)), np.zeros((9, 6)), "ids is float32; expected integers"),
        (np.zeros(5), np.zeros((9, 6), int), "table has shape .5,.; expected two axes"),
        (np.zeros((5, 3)), np.zeros(9, int), "x has shape .9, 3.; expected three axes"),
    ],
)
def test_rejects_other_shapes_and_dtypes(table, ids, message):
    with pytest.raises(ValueError, match=message):
        lstm_sequence(draw()[0], Lookup(table.astype(np.float32), ids))


@needs_native
@pytest.mark.parametrize("embedding_dropout", [0.0, 0.5])
def test_language_model_equals_fused(embedding_dropout):
    """The loss and all gradients, those of the embedding too."""
    tokens = np.random.default_rng(0).integers(0, 5, (8, 6))

    def compute(backend):
        rngs = nnx_rngs()
        lstm = LSTM(3, 4, backend=backend, rngs=rngs)
        model = LanguageModel(5, lstm, embedding_dropout=embedding_dropout, rngs=rngs)

        def loss(model):
            logits, _ = model(tokens[:-1], rngs=nnx_rngs())
            return token_losses(logits, tokens[1:])[0]

        return nnx.value_and_grad(loss)(model)

    found, expected = compute("native"), compute("fused")
    check(jax.tree.leaves(found), jax.tree.leaves(expected))


def nnx_rngs():
    return nnx.Rngs(params=0, dropout=1)
