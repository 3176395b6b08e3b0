"""The native backend: equal to the float64 oracle, exact facts of its kernels, and JAX's rules."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import draw, draw_output_weights, make_options
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from many_devices import first_devices
from test_fused import CLIPS

from lstm_optax import (
    CotangentClip,
    GradientFlow,
    LSTMParams,
    LSTMState,
    lstm_sequence,
    unavailable_backends,
)
from lstm_optax.lstm.backends.native import missing
from lstm_optax.lstm.native import calls, library

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
INSTRUCTIONS = ("avx512", "avx2", "baseline", "neon")
T, B, F, H = 5, 3, 2, 4


@pytest.fixture
def use():
    """Return a function that selects instructions, or skips the test if this CPU has none."""
    before = library.instructions()

    def select(name):
        try:
            library.use(name)
        except ValueError as error:
            pytest.skip(str(error))

    yield select
    library.use(before)


def float32(tree):
    return jax.tree.map(jnp.float32, tree)


# ---- values and gradients ----


def found(arguments, weights, **options):
    """Return the results and the gradients of their weighted sum, of the native backend."""

    def loss(params, x, carry):
        results = lstm_sequence(params, x, carry, backend="native", **options)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, r: jnp.sum(w * r), weights, results))), (
            results
        )

    grads, (outputs, last) = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)
    return dict(
        outputs=outputs,
        h=last.h,
        c=last.c,
        **{name: getattr(grads[0], name) for name in LSTMParams._fields},
        x=grads[1],
        h0=grads[2].h,
        c0=grads[2].c,
    )


def expected(arguments, weights, clip=None, detach=None, **options):
    """Return the same in float64 by the oracle."""
    params, x, carry = jax.tree.map(lambda a: np.asarray(a, np.float64), arguments)
    bounds = {} if clip is None else clip._asdict()

    def cut(t, name, d):
        bound = bounds.get(name)
        if bound is None:
            return d
        if isinstance(clip, CotangentClip):
            low, high = bound if isinstance(bound, tuple) else (-bound, bound)
            return np.clip(d, low, high)
        norms = np.linalg.norm(d, axis=1, keepdims=True)
        return d * np.minimum(1, bound / np.maximum(norms, 1e-300))

    outputs, h, c = oracle.forward(*params, x, *carry, **options)
    d_outputs, d_last = weights
    grads = oracle.gradients(*params, x, *carry, d_outputs, *d_last, cut=cut, **options)
    return dict(outputs=outputs, h=h, c=c, **grads)


def check(shape_of, lengths, resets, reverse, clip, gradient, seed, bound=3e-6):
    """Every array is within `bound` of its largest entry."""
    time, batch, _, _ = shape_of
    params, x, carry = draw(shape_of, seed)
    # pre-activations of about 1, as in a model: the error of a sum grows with its terms
    params = params._replace(kernel_ih=params.kernel_ih / np.sqrt(shape_of[2]))
    arguments = float32((params, x, carry))
    options = make_options(lengths, resets, reverse, time, batch, seed)
    like = jnp.zeros((time, batch, shape_of[3])), LSTMState(*[jnp.zeros((batch, shape_of[3]))] * 2)
    weights = jax.tree.map(np.float32, draw_output_weights(*like))
    got = found(arguments, weights, gradient=gradient, cotangent_clip=CLIPS[clip], **options)
    want = expected(arguments, weights, clip=CLIPS[clip], **options)
    assert got.keys() == want.keys()
    for name, value in want.items():
        error = np.max(np.abs(got[name] - value), initial=0) / (np.max(np.abs(value)) + 1e-30)
        assert error < bound, (name, error)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(
    "shape_of, lengths, resets, reverse, clip, gradient",
    [
        ((7, 13, 5, 35), True, True, True, "value", "stored"),
        ((6, 3, 17, 16), True, True, False, "", "remat"),
        ((3, 1, 1, 1), False, False, False, "", "stored"),
    ],
)
def test_equals_oracle(instructions, use, shape_of, lengths, resets, reverse, clip, gradient):
    use(instructions)
    check(shape_of, lengths, resets, reverse, clip, gradient, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_random_calls_equal_oracle(instructions, use):
    use(instructions)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(
        shape_of=st.tuples(
            st.integers(1, 40), st.integers(1, 70), st.integers(1, 70), st.integers(1, 130)
        ),
        lengths=st.booleans(),
        resets=st.booleans(),
        reverse=st.booleans(),
        clip=st.sampled_from(sorted(CLIPS)),
        gradient=st.sampled_from(["stored", "remat"]),
        seed=st.integers(0, 9),
    )
    def run(**case):
        # sums of more products are longer: 3e-6 holds where the clip does not cut at its bound
        check(**case, bound=3e-6 if case["clip"] == "" else 1e-5)

    run()


@pytest.mark.soak
@pytest.mark.parametrize("time, batch, features, hidden", [(200, 70, 300, 300), (200, 5, 3, 299)])
def test_long_calls_equal_oracle(time, batch, features, hidden):
    check((time, batch, features, hidden), True, True, False, "", "stored", seed=3)


def test_detached_steps_equal_reference():
    arguments = float32(draw())
    detach = np.random.default_rng(0).random((T, B)) < 0.4

    def grads(backend):
        loss = lambda *a: jnp.sum(lstm_sequence(*a, backend=backend, detach=detach)[0] ** 2)  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(*arguments)

    chex.assert_trees_all_close(grads("native"), grads("reference"), rtol=1e-5, atol=1e-6)


def test_threads_do_not_change_bits(monkeypatch):
    """A row is computed alike in any tile and on any thread, so the order of rows is no matter."""
    params, x, carry = float32(draw((20, 23, 8, 32)))
    order = np.random.default_rng(0).permutation(23)
    whole, _ = lstm_sequence(params, x, carry, backend="native")
    moved, _ = lstm_sequence(
        params, x[:, order], jax.tree.map(lambda s: s[order], carry), backend="native"
    )
    np.testing.assert_array_equal(whole[:, order], moved)


def test_large_call_runs_on_all_threads_alike():
    """More operations than one part has: rows are split, and equal those of small calls."""
    params, x, carry = float32(draw((64, 32, 64, 64)))
    whole, _ = lstm_sequence(params, x, carry, backend="native")
    few, _ = lstm_sequence(params, x[:, :2], jax.tree.map(lambda s: s[:2], carry), backend="native")
    np.testing.assert_array_equal(whole[:, :2], few)


# ---- the activations ----


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(
    "name, exact", [("tanh", np.tanh), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))]
)
def test_activation_is_within_four_ulp(instructions, use, name, exact):
    use(instructions)
    near = np.exp(np.linspace(-60, 4.4, 100_001))
    x = np.concatenate([np.linspace(-12, 12, 200_003), near, -near]).astype(np.float32)
    error = _ulps(name, exact, x)
    print(f"{name}, {instructions}: {error:.2f} units in the last place")
    assert error < 4


@pytest.mark.soak
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_tanh_of_every_float(instructions, use):
    use(instructions)
    for exponent in range(0, 2**32, 2**24):
        x = np.arange(exponent, exponent + 2**24, dtype=np.uint64).astype(np.uint32)
        x = x.view(np.float32)
        assert _ulps("tanh", np.tanh, x[np.isfinite(x)]) < 4


def _ulps(name, exact, x):
    y = _apply(name, x)
    expected = exact(x.astype(np.float64))
    assert np.all(np.abs(y) <= 1)
    tiny = np.finfo(np.float32).tiny
    spacing = np.spacing(np.maximum(np.abs(expected), tiny).astype(np.float32))
    return np.max(np.abs(y - expected) / spacing)


def _apply(name, x):
    y = np.empty_like(x)
    pointers = (a.ctypes.data_as(ctypes.c_void_p) for a in (x, y))
    x_at, y_at = pointers
    getattr(library.load(), f"lstm_optax_{name}")(x_at, ctypes.c_int64(x.size), y_at)
    return y


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_activations_of_special_numbers(instructions, use):
    use(instructions)
    x = np.array([np.nan, np.inf, -np.inf, 0, 1e-44, 3e38], np.float32)
    np.testing.assert_array_equal(_apply("tanh", x)[[0, 1, 2, 3, 5]], [np.nan, 1, -1, 0, 1])
    np.testing.assert_allclose(_apply("sigmoid", x), [np.nan, 1, 0, 0.5, 0.5, 1], atol=1e-37)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_input_stays_in_its_row(bad):
    """The same entries are finite as in the fused backend; an infinity may be a NaN there."""
    params, x, carry = float32(draw())
    x = x.at[2, 1, 0].set(bad)

    def run(backend):
        loss = lambda *a: jnp.sum(lstm_sequence(*a, backend=backend)[0])  # noqa: E731
        outputs, _ = lstm_sequence(params, x, carry, backend=backend)
        return outputs, jax.grad(loss, (0, 1, 2))(params, x, carry)

    found, fused = run("native"), run("fused")
    assert np.isfinite(found[0][:, [0, 2]]).all()
    for a, b in zip(*map(jax.tree.leaves, (found, fused)), strict=True):
        finite = np.isfinite(b)
        np.testing.assert_array_equal(np.isfinite(a), finite)
        np.testing.assert_allclose(a[finite], b[finite], rtol=1e-4, atol=1e-6)


# ---- JAX ----


def loss(params, x, resets=None, *, backend, **options):
    outputs, last = lstm_sequence(params, x, resets=resets, backend=backend, **options)
    return jnp.sum(outputs**2) + jnp.sum(last.c)


def grads_of(backend, **options):
    return jax.grad(partial(loss, backend=backend, **options), (0, 1))


def check_like_fused(transformed, *arguments):
    """transformed(grads of a backend)(*arguments) is the same for native and fused."""
    results = [jax.jit(transformed(grads_of(b)))(*arguments) for b in ("native", "fused")]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(results))


@pytest.mark.parametrize(
    "axes",
    [(None, 0), (0, None), pytest.param((0, 0), marks=pytest.mark.slow)],
    ids=["inputs", "parameters", "both"],
)
def test_vmap_equals_fused(axes):
    params, x, _ = float32(draw())
    stack = lambda tree: jax.tree.map(lambda a: jnp.stack([a, a / 2, -a]), tree)  # noqa: E731
    arguments = [stack(a) if axis == 0 else a for a, axis in zip((params, x), axes, strict=True)]
    check_like_fused(lambda grads: jax.vmap(grads, axes), *arguments)


def test_mapped_inputs_are_rows_of_one_call():
    params, x, _ = float32(draw())
    run = jax.vmap(lambda x: lstm_sequence(params, x, backend="native")[0])
    text = jax.jit(run).lower(jnp.stack([x, x])).compile().as_text()
    assert text.count('custom_call_target="lstm_optax_forward"') == 1 and "while" not in text


def test_second_derivative_equals_fused():
    params, x, _ = float32(draw())
    length = lambda tree: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(tree))  # noqa: E731
    check_like_fused(lambda grads: jax.grad(lambda *a: length(grads(*a)), (0, 1)), params, x)


@pytest.mark.parametrize("gradient", ["stored", "remat"])
def test_program_has_expected_calls(gradient):
    """The activations are overwritten in place; what nobody reads is not computed."""
    params, x, _ = float32(draw())
    run = jax.jit(jax.grad(partial(loss, backend="native", gradient=gradient)))
    text = run.lower(params, x).compile().as_text()
    called = [call for call in library.CALLS for _ in range(text.count(f'"lstm_optax_{call}"'))]
    twice = ["forward"] * (gradient == "remat")
    assert called == [*twice, "forward", "backward", "weight_gradient"]
    assert not [line for line in text.splitlines() if " copy(" in line and f"f32[{T}," in line]


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=str)
def mesh(request):
    count = max(2, jax.device_count() // 2 * 2)
    return jax.make_mesh((count,), ("rows",), (request.param,), devices=first_devices(count))


def place(mesh, params, x, resets):
    rows = NamedSharding(mesh, P(None, "rows"))
    return jax.device_put((params, x, resets), (NamedSharding(mesh, P()), rows, rows))


def test_sharded_rows_equal_single(mesh):
    """Each device runs its rows; the weights' gradients are summed once, nothing is gathered."""
    params, x, _ = float32(draw((T, 2 * mesh.size, F, H)))
    resets = np.random.default_rng(0).random(x.shape[:2]) < 0.3
    expected = grads_of("fused")(params, x, resets)
    run = jax.jit(grads_of("native"))
    arguments = place(mesh, params, x, resets)
    text = run.lower(*arguments).compile().as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(f" {op}(" in text for op in ("all-gather", "all-to-all", "collective-permute"))
    found = run(*arguments)
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-5, atol=1e-5)
    assert found[1].sharding.spec[1] == "rows"


def test_shard_map_equals_single(mesh):
    params, x, _ = float32(draw((T, 2 * mesh.size, F, H)))
    resets = np.random.default_rng(0).random(x.shape[:2]) < 0.3
    rows = P(None, "rows")

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), rows, rows), out_specs=(P(), rows))
    def run(*arguments):
        return grads_of("native")(*arguments)  # JAX sums the gradient of what all devices share

    expected = grads_of("fused")(params, x, resets)
    found = jax.device_get(run(*place(mesh, params, x, resets)))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_many_calls_at_once_end():
    """1,000 calls from eight threads of this process, each of several parts."""
    params, x, _ = float32(draw((8, 12, 32, 64)))
    run = jax.jit(grads_of("native"))
    expected = jax.device_get(run(params, x))

    def call(_):
        return jax.device_get(run(params, x))

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(call, range(1000), timeout=120))
    for result in results[::50]:
        jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_export_is_refused():
    params, x, _ = float32(draw())
    with pytest.raises(ValueError, match="lstm_optax_forward"):
        jax.export.export(jax.jit(partial(loss, backend="native")))(params, x)


# ---- which backend runs ----


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(gradient="autodiff"), "it takes no gradient='autodiff'"),
        (
            dict(probe=GradientFlow.zeros(T, B)),
            "it shows no step of its backward pass, so it takes no probe",
        ),
    ],
)
def test_rejects_unsupported_call(options, message):
    params, x, _ = float32(draw())
    with pytest.raises(ValueError, match=f"backend='native' cannot run this call: .*{message}"):
        lstm_sequence(params, x, backend="native", **options)
    auto = lstm_sequence(params, x, **options)[0]
    np.testing.assert_array_equal(auto, lstm_sequence(params, x, backend="fused", **options)[0])


def test_rejects_float64(x64):
    arguments = jax.tree.map(jnp.float64, draw())
    with pytest.raises(ValueError, match="it computes in float32, and dtype is float64"):
        lstm_sequence(*arguments, backend="native")
    assert lstm_sequence(*arguments)[0].dtype == jnp.float64


def test_rejects_empty_sequence():
    params, x, _ = float32(draw())
    with pytest.raises(ValueError, match=r"sizes of at least 1, and x has shape \(0, 3, 2\)"):
        lstm_sequence(params, x[:0], backend="native")
    assert lstm_sequence(params, x[:0])[0].shape == (0, B, H)


def test_auto_is_native_on_a_cpu():
    params, x, _ = float32(draw())
    text = jax.jit(partial(lstm_sequence, params)).lower(x).as_text()
    assert "lstm_optax_forward" in text


@pytest.mark.parametrize("change", ["x", "kernel_hh", "flags"])
def test_wrong_shape_is_an_error_not_a_crash(change):
    params, x, _ = float32(draw())
    arrays = dict(x=x, kernel_ih=params.kernel_ih, kernel_hh=params.kernel_hh, bias=params.bias)
    arrays |= dict(h=jnp.zeros((B, H)), c=jnp.zeros((B, H)), flags=jnp.zeros((0, B), jnp.uint8))
    arrays[change] = jnp.zeros((T + 1, B + 1, F + 1)[: arrays[change].ndim], arrays[change].dtype)
    with pytest.raises(Exception, match="has shape .*expected"):
        jax.block_until_ready(calls.forward(False, True)(*arrays.values()))


def test_unavailable_backends_have_reasons(monkeypatch):
    assert "native" not in unavailable_backends() and "fused" not in unavailable_backends()
    monkeypatch.setattr(library, "missing", lambda: "it was left out")
    assert unavailable_backends()["native"] == "it was left out"
