"""The fused backend equals the reference with each feature; facts of its compiled program."""

import re
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import draw, draw_output_weights, make_options
from compiled import cpu_program, optimized
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_for

from lstm_optax import LSTM, CotangentClip, CotangentNormClip, lstm_sequence

T, B, F, H = 5, 3, 2, 4
CLIPS = {
    "": None,
    "value": CotangentClip(h=0.5, c=(-0.3, 0.4), gates=0.2),
    "norm": CotangentNormClip(h=0.8, c=0.7, gates=0.3),
}
FEATURES = dict(
    lengths=st.booleans(),
    resets=st.booleans(),
    reverse=st.booleans(),
    detached=st.booleans(),
    clip=st.sampled_from(sorted(CLIPS)),
)


def values_and_gradients(params, x, carry, dtype=jnp.float64, **options):
    """Return the results, and the gradients of a random weighted sum of them."""
    params, x, carry = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x, carry))

    def loss(params, x, carry):
        results = lstm_sequence(params, x, carry, **options)
        weights = jax.tree.map(lambda w: w.astype(dtype), draw_output_weights(*results))
        products = jax.tree.map(lambda w, r: jnp.sum(w * r), weights, results)
        return sum(jax.tree.leaves(products)), results

    grads, results = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, x, carry)
    return results, grads


def check_equals_reference(shape_of, gradient, lengths, resets, reverse, detached, clip, seed):
    options = make_options(lengths, resets, reverse, *shape_of[:2], seed)
    options["cotangent_clip"] = CLIPS[clip]
    if detached:
        options["detach"] = np.random.default_rng(seed).random(shape_of[:2]) < 0.4
    arguments = draw(shape_of, seed)
    fused = values_and_gradients(*arguments, backend="fused", gradient=gradient, **options)
    expected = values_and_gradients(*arguments, backend="reference", **options)
    chex.assert_trees_all_close(fused, expected, rtol=1e-10, atol=1e-12)


COMBINATIONS = list(product(["stored", "remat"], CLIPS, [False, True]))
PLAIN = [("stored", "norm", True), ("remat", "value", False)]


@pytest.mark.parametrize("combination", plain_for(COMBINATIONS, PLAIN), ids=str)
def test_all_features_equal_reference(combination, x64):
    gradient, clip, reverse = combination
    check_equals_reference((T, B, F, H), gradient, True, True, reverse, True, clip, 0)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["stored", "remat", "autodiff"])
@settings(max_examples=12)
@given(
    shape_of=st.tuples(*[st.integers(1, 5)] * 4),
    seed=st.integers(0, 99),
    features=st.fixed_dictionaries(FEATURES),
)
def test_random_features_equal_reference(gradient, shape_of, seed, features):
    with jax.enable_x64(True):
        check_equals_reference(shape_of, gradient, **features, seed=seed)


@pytest.mark.parametrize("gradient", plain_for(("stored", "remat"), ("remat",)))
def test_float32_error_is_bounded(gradient):
    """Within 2e-6 of the largest entry of each float64 array, over 50 steps."""
    arguments = draw((50, 8, 16, 32))
    results = values_and_gradients(*arguments, dtype=jnp.float32, gradient=gradient)
    with jax.enable_x64(True):
        exact = values_and_gradients(*arguments, backend="reference")
        exact = jax.tree.map(np.asarray, exact)
    for ours, expected in zip(jax.tree.leaves(results), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == jnp.float32
        assert np.max(np.abs(ours - expected)) <= 2e-6 * np.max(np.abs(expected))


def test_bfloat16_gradient_is_close_to_float32():
    arguments = draw((8, 4, 8, 16))
    _, exact = values_and_gradients(*arguments, dtype=jnp.float32)
    _, grads = values_and_gradients(*arguments, dtype=jnp.bfloat16)
    for ours, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == jnp.bfloat16
        assert np.max(np.abs(ours - expected)) <= 0.05 * np.max(np.abs(expected))


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["stored", "remat"])
def test_vmap_over_parameters(gradient):
    """An ensemble or a sweep: vmap over the parameters only."""
    _, x, carry = draw()
    several = [draw(seed=seed)[0] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)

    def one(params):
        return values_and_gradients(params, x, carry, jnp.float32, gradient=gradient)

    together = jax.vmap(one)(stacked)
    apart = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(one, several))
    chex.assert_trees_all_close(together, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_bidirectional_stack_equals_reference():
    """With lengths, and the same dropout masks."""
    options = dict(num_layers=2, bidirectional=True, dropout=0.3, weight_dropout=0.3)
    x = jax.random.normal(jax.random.key(1), (T, B, F))

    def run(backend):
        lstm = LSTM(F, H, **options, backend=backend, rngs=nnx.Rngs(params=0))

        @jax.jit
        def loss(params):
            model = nnx.merge(nnx.graphdef(lstm), params)
            y, carry = model(x, seq_lengths=jnp.array([5, 2, 0]), rngs=nnx.Rngs(dropout=3))
            return jnp.sum(y**2) + sum(jnp.sum(s.c) for s in carry), y

        return jax.value_and_grad(loss, has_aux=True)(nnx.state(lstm))

    chex.assert_trees_all_close(run("fused"), run("reference"), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_second_derivatives_equal_reference(x64):
    params, x, carry = draw((3, 2, 2, 2))

    def loss(bias, **options):
        return jnp.sum(lstm_sequence(params._replace(bias=bias), x, carry, **options)[0] ** 2)

    def slope(bias, **options):
        return jnp.sum(jax.grad(loss)(bias, **options) ** 2)

    expected = jax.hessian(loss)(params.bias, backend="reference")
    hessian = jax.hessian(loss)(params.bias, gradient="autodiff")
    np.testing.assert_allclose(hessian, expected, rtol=1e-10, atol=1e-12)
    for gradient in ("stored", "remat"):
        np.testing.assert_allclose(
            jax.grad(slope)(params.bias, gradient=gradient),
            jax.grad(slope)(params.bias, backend="reference"),
            rtol=1e-10,
            atol=1e-12,
        )
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(lambda b: loss(b, gradient=gradient), (params.bias,), (params.bias,))  # noqa: B023


def test_number_of_stored_residuals():
    """7 numbers for each hidden unit, row and step, or 2 with "remat"."""
    params, x, carry = jax.tree.map(jnp.float32, draw())

    def kept(gradient):
        _, pull = jax.vjp(
            lambda p: lstm_sequence(p, x, carry, backend="fused", gradient=gradient)[0], params
        )
        over_time = [r.size for r in jax.tree.leaves(pull) if r.shape[:2] == (T, B)]
        return (sum(over_time) - x.size) / (T * B * H)

    assert (kept("stored"), kept("remat")) == (7, 2)
    assert kept("autodiff") > 7


@cpu_program
@pytest.mark.parametrize("lengths, resets, reverse", [(False, False, False), (True, True, True)])
@pytest.mark.parametrize("cached", [0, T * B * 4 * H])
def test_large_buffer_is_not_hoisted(cached, lengths, resets, reverse, monkeypatch, x64):
    """A buffer beyond the cache limit is not built; the values equal the reference."""
    monkeypatch.setattr("lstm_optax.lstm.backends.fused._CACHE_ENTRIES", cached)
    params, x, carry = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), draw((T, B, F, H)))
    options = make_options(lengths, resets, reverse, T, B)
    run = jax.jit(lambda *arguments: lstm_sequence(*arguments, **options))
    expected = lstm_sequence(params, x, carry, backend="reference", **options)
    chex.assert_trees_all_close(run(params, x, carry), expected, rtol=1e-10, atol=1e-12)
    buffer = f"f64[{T},{B},{4 * H}]"
    assert (buffer in optimized(run.lower(params, x, carry)).as_text()) == (cached > 0)


def test_rejects_unknown_gradient():
    params, x, _ = draw()
    message = "unknown gradient 'custom' of an LSTM; expected 'stored', 'remat', 'autodiff'"
    with pytest.raises(ValueError, match=message):
        lstm_sequence(params, x, gradient="custom")
    with pytest.raises(ValueError, match=message):
        LSTM(2, 3, gradient="custom", rngs=nnx.Rngs(0))


# The compiled program on CPU; all axes have different sizes.
TIME, BATCH, FEATURES, HIDDEN = 24, 6, 10, 32


def loops_of(gradient="stored", **options):
    """Return (opcode, shape) of the instructions in each loop, and shapes of all products."""
    params, x, carry = jax.tree.map(jnp.float32, draw((TIME, BATCH, FEATURES, HIDDEN)))
    options |= dict(gradient=gradient, backend="fused")

    def loss(params, x, carry):
        return jnp.sum(lstm_sequence(params, x, carry, **options)[0] ** 2)

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = optimized(grad.lower(params, x, carry)).as_text()
    programs = {}
    for block in re.split(r"\n\n", text):
        name = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", block.strip())
        lines = re.findall(r"= ([\w\[\],{}() /*=]+?) ([\w\-]+)\((.*)", block)
        if name:
            programs[name[1]] = lines
    bodies = re.findall(r"body=%?([\w.\-]+)", text)
    return [_opened(programs, body) for body in bodies]


def _opened(programs, name):
    calls, products = [], []
    for shape, opcode, rest in programs[name]:
        if opcode in ("fusion", "dot", "custom-call", "copy", "concatenate", "call"):
            calls.append((opcode, shape))
        inner = re.search(r"calls=%?([\w.\-]+)", rest)
        if opcode == "dot":
            products.append(shape)
        elif inner:
            products += [s for s, o, _ in programs[inner[1]] if o == "dot"]
    return calls, products


@cpu_program
@pytest.mark.parametrize("gradient", ["stored", "remat"])
def test_loops_have_one_product_no_copy(gradient):
    forward, backward = loops_of(gradient)
    assert [s.split("{")[0] for s in forward[1]] == [f"f32[{BATCH},{4 * HIDDEN}]"]
    assert [s.split("{")[0] for s in backward[1]] == [f"f32[{BATCH},{HIDDEN}]"]
    for calls, _ in (forward, backward):
        copies = [shape for opcode, shape in calls if opcode in ("copy", "concatenate")]
        assert not [shape for shape in copies if f"[{TIME}," in shape]
        assert len(calls) <= 20


@cpu_program
def test_autodiff_loop_has_weight_gradient():
    """The test above can fail: JAX accumulates the weight gradient inside the loop."""
    _, backward = loops_of("autodiff")
    assert f"f32[{HIDDEN},{4 * HIDDEN}]" in [s.split("{")[0] for s in backward[1]]


def test_loops_for_gpu_share_no_array():
    """Off the CPU a loop neither reads nor writes in place, and an iteration runs four steps."""
    params, x, _ = jax.tree.map(jnp.float32, draw())

    def loss(x):
        return jnp.sum(lstm_sequence(params, x, backend="fused")[0] ** 2)

    scans = list(_scans(jax.make_jaxpr(jax.grad(loss))(x).jaxpr))
    unrolled = [e for e in scans if e.params["unroll"] == 4]
    assert len(scans) == 4 and len(unrolled) == 2  # each pass has another loop for a CPU
    for scan in scans:
        in_place = "dynamic_update_slice" in str(scan.params["jaxpr"])
        assert in_place == (scan not in unrolled)


def _scans(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _scans(inner)
