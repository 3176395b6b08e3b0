"""Clips by the norm of all gradients: none overflows, and each counts its clips."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from many_devices import first_devices

import lstm_optax as lo


def clipped(tree, max_norm, **options):
    tx = lo.clip_by_global_norm(max_norm, **options)
    return tx.update(tree, tx.init(tree))


def oracle(tree, max_norm):
    """The same in float64, where nothing of a float32 overflows."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    norm = np.sqrt(sum(np.sum(x[np.isfinite(x)] ** 2) for x in leaves))
    factor = min(1.0, max_norm / norm) if norm else 1.0
    return [np.where(np.isfinite(x), x * factor, x) for x in leaves], norm, factor


EXTREMES = {  # of float32, but for the one of float16
    "overflowing squares": jnp.array([1e20, 1, 0]),
    "overflowing norm": jnp.full(9, 3e38),
    "largest": jnp.array([3.4e38, -3.4e38]),
    "vanishing squares": jnp.array([1e-30, -1e-25]),
    "half precision": jnp.array([300, 1], jnp.float16),
    "largest half": jnp.full(4, 65504, jnp.float16),
    "an infinity": jnp.array([jnp.inf, 3, 4]),
    "not a number": jnp.array([3, jnp.nan, -jnp.inf, 4]),
    "ordinary": jnp.array([3.0, 4.0]),
    "zero": jnp.zeros(3),
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("max_norms", [[1.0], [1.0, 1e-3, 1e-28, 1e30]], ids=["eager", "vmap"])
def test_extreme_gradients_are_clipped(name, max_norms):
    g = {"a": EXTREMES[name]}
    if len(max_norms) == 1:
        check_extreme(g["a"], max_norms[0], *clipped(g, max_norms[0]))
        return
    many = jax.jit(jax.vmap(clipped, in_axes=(None, 0)))(g, np.float32(max_norms))
    for i, max_norm in enumerate(max_norms):
        check_extreme(g["a"], max_norm, *jax.tree.map(lambda x, i=i: x[i], many))


def check_extreme(g, max_norm, updates, state):
    (expected,), norm, factor = oracle(g, max_norm)
    if g.dtype == jnp.float16:
        expected = expected.astype(np.float16)
    atol = 1.2e-38 if g.dtype == jnp.float32 else 6e-8  # smaller numbers may become zero
    np.testing.assert_allclose(updates["a"], expected, rtol=2e-6, atol=atol)
    largest = float(jnp.finfo(jnp.float32).max)
    np.testing.assert_allclose(state.norm, min(norm, largest), rtol=1e-6)
    np.testing.assert_allclose(state.factor, factor, rtol=2e-6, atol=1.2e-38)
    assert int(state.clipped) == (factor < 1)
    assert int(state.nonfinite) == (not np.all(np.isfinite(np.asarray(g, np.float64))))


@pytest.mark.parametrize("where", ["large", "small", "scalar"])
@pytest.mark.parametrize("name", ["overflowing squares", "an infinity", "ordinary"])
def test_norm_ignores_sizes_of_leaves(name, where):
    """Small leaves are measured as one, a large one by itself."""
    extreme = EXTREMES[name]
    g = {"large": jnp.full(2**14 + 1, 0.01), "small": jnp.ones((2, 3)), "scalar": jnp.ones([])}
    g[where] = extreme[0] if where == "scalar" else jnp.resize(extreme, g[where].shape)
    updates, state = jax.jit(lambda g: clipped(g, 2.0))(g)
    expected, norm, factor = oracle(g, 2.0)
    for update, want in zip(jax.tree.leaves(updates), expected, strict=True):
        np.testing.assert_allclose(update, want, rtol=2e-5, atol=1.2e-38)
    np.testing.assert_allclose(state.norm, norm, rtol=1e-5)
    np.testing.assert_allclose(state.factor, factor, rtol=1e-5)


def test_small_leaves_are_one_to_the_compiler():
    """Only the multiplication is computed leaf by leaf, not the norm."""
    g = [jnp.ones(3 + i % 5) for i in range(200)]
    text = jax.jit(lambda g: clipped(g, 1.0)).lower(g).as_text()
    assert text.count("stablehlo.reduce(") < 20


AT = {"rows": P("at"), "columns": P(None, "at"), "whole": P()}
SHARED = {name: jnp.arange(8.0).reshape(2, 4) for name in AT}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_norm_of_sharded_leaves(axis_type):
    mesh = jax.make_mesh((2,), ("at",), (axis_type,), devices=first_devices(2))
    placed = jax.device_put(SHARED, {name: NamedSharding(mesh, at) for name, at in AT.items()})
    updates, state = jax.jit(lambda g: clipped(g, 1.0))(placed)
    expected, norm, _ = oracle(SHARED, 1.0)
    np.testing.assert_allclose(state.norm, norm, rtol=1e-6)
    for update, want in zip(jax.tree.leaves(updates), expected, strict=True):
        np.testing.assert_allclose(update, want, rtol=2e-6)


def test_norm_inside_shard_map_is_local():
    mesh = jax.make_mesh((2,), ("at",), (AxisType.Auto,), devices=first_devices(2))
    norm = jax.shard_map(
        lambda g: lo.global_norm(g)[None], mesh=mesh, in_specs=(AT,), out_specs=P("at")
    )
    rows, columns, whole = SHARED["rows"], SHARED["columns"], SHARED["whole"]
    own = [[rows[i], columns[:, 2 * i : 2 * i + 2], whole] for i in (0, 1)]
    expected = [oracle(leaves, 1.0)[1] for leaves in own]
    np.testing.assert_allclose(jax.jit(norm)(SHARED), expected, rtol=1e-6)


def test_nonfinite_gradient_becomes_zero_on_request():
    g = {"a": jnp.array([jnp.inf, 3.0]), "b": jnp.array([jnp.nan, -jnp.inf, 4.0])}
    updates, state = clipped(g, 1.0, nonfinite="zero")
    for name, expected in {"a": [0.0, 0.6], "b": [0.0, 0.0, 0.8]}.items():
        np.testing.assert_allclose(updates[name], expected, rtol=1e-6)
    updates, state = clipped(g, 10.0, nonfinite="zero")
    for name, expected in {"a": [0.0, 3.0], "b": [0.0, 0.0, 4.0]}.items():
        np.testing.assert_allclose(updates[name], expected)
    assert (int(state.clipped), int(state.nonfinite)) == (0, 1)


def test_optax_zeroes_large_gradients():
    """The reason for this clip; the test fails once Optax scales such gradients, too."""
    g = jnp.array([1e20, 1, 0])
    theirs = optax.clip_by_global_norm(1.0)
    assert not np.any(theirs.update(g, theirs.init(g))[0])
    np.testing.assert_allclose(clipped(g, 1.0)[0], [1, 1e-20, 0])


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 1e3])
def test_clip_equals_optax_without_overflow(max_norm, x64):
    rng = np.random.default_rng(0)
    g = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=5))}
    theirs = optax.clip_by_global_norm(max_norm)
    expected = theirs.update(g, theirs.init(g))[0]
    chex.assert_trees_all_close(clipped(g, max_norm)[0], expected, rtol=1e-14)


@given(
    exponents=st.lists(st.integers(-120, 127), min_size=1, max_size=6),
    power=st.integers(-60, 60),
)
def test_clipped_norm_is_the_bound(exponents, power):
    g = np.ldexp(np.float32(0.7), np.pad(exponents, (0, 6 - len(exponents)), mode="edge"))
    updates, state = CLIP(g, np.float32(2.0**power))
    expected, norm, factor = oracle(g, 2.0**power)
    lost = 1.2e-38 * max(1, 2.0**power)  # entries so much smaller than the largest
    np.testing.assert_allclose(updates, expected[0], rtol=2e-6, atol=lost)
    if np.isfinite(np.float32(norm)):
        np.testing.assert_allclose(NORM(g), norm, rtol=1e-6)
    assert int(state.clipped) == (norm > np.float32(2.0**power))


CLIP, NORM = jax.jit(clipped), jax.jit(lo.global_norm)


def test_clip_keeps_gradients_below_bound():
    tx = lo.clip_by_global_norm(5.0)
    state = tx.init(None)
    for g in ([3.0, 4.0], [30.0, 40.0], [0.1, 0.7], [6.0, 8.0]):
        updates, state = tx.update(jnp.array(g), state)
        if np.hypot(*g) <= 5:
            np.testing.assert_array_equal(updates, np.float32(g))
    assert int(state.clipped) == 2
    np.testing.assert_allclose((state.norm, state.factor), (10, 0.5))


def test_infinite_bound_only_measures():
    updates, state = clipped(jnp.array([3e38, 3e38]), float("inf"))
    np.testing.assert_array_equal(updates, np.float32([3e38, 3e38]))
    assert (int(state.clipped), float(state.factor)) == (0, 1.0)


def test_bound_of_zero_returns_zero():
    assert not np.any(clipped(jnp.array([3e38, 1.0]), 0.0)[0])


def test_mixed_dtypes_share_one_norm():
    g = {"half": jnp.array([300.0], jnp.float16), "single": jnp.array([400.0], jnp.float32)}
    updates, state = clipped(g, 5.0)
    np.testing.assert_allclose(state.norm, 500)
    assert updates["half"].dtype == jnp.float16
    np.testing.assert_allclose([updates["half"][0], updates["single"][0]], [3, 4], rtol=1e-3)


def test_global_norm_of_any_tree():
    assert float(lo.global_norm({})) == 0
    assert float(lo.global_norm({"a": jnp.zeros((0, 3)), "b": None})) == 0
    np.testing.assert_allclose(lo.global_norm([jnp.full(4, 1e30), jnp.zeros(2)]), 2e30)
    assert float(lo.global_norm(jnp.full(4, 3e38))) == float(jnp.finfo(jnp.float32).max)
    assert not np.isfinite(lo.global_norm([jnp.array([1.0, jnp.inf])]))
    assert not np.isfinite(lo.global_norm([jnp.array([1.0, jnp.nan])]))


def test_quantile_follows_recent_norms():
    """A NumPy twin: the quantile of the last norms, this one among them, as the bound."""
    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(60, 3)) * np.exp(rng.normal(size=(60, 1)))
    gradients[30] *= 1e4
    gradients[40:42] = 0
    tx = lo.clip_by_norm_quantile(0.8, window=16)
    updates, states = jax.lax.scan(
        lambda s, g: (lambda u, s: (s, (u, s)))(*tx.update(g, s)),
        tx.init(jnp.zeros(3)),
        jnp.asarray(gradients, jnp.float32),
    )[1]
    norms, count = [], 0
    for t, g in enumerate(gradients):
        norm = np.linalg.norm(g)
        norms += [norm] if norm else []
        bound = np.quantile(norms[-16:], 0.8, method="lower")
        count += norm > bound * (1 + 1e-6)
        np.testing.assert_allclose(updates[t], g * min(1, bound / norm) if norm else g, rtol=1e-4)
        assert int(states.clip.clipped[t]) == count
    assert 5 < count < 30


def test_outlier_moves_quantile_by_one_rank():
    tx = lo.clip_by_norm_quantile(0.5, window=9)
    state = tx.init(jnp.zeros(1))
    for size in (1, 1.1, 0.9, 1, 1.2):
        _, state = tx.update(jnp.array([size], jnp.float32), state)
    updates, state = tx.update(jnp.array([1e30]), state)
    np.testing.assert_allclose(updates, [1.0], rtol=1e-5)
    updates, state = tx.update(jnp.array([jnp.inf]), state)  # counts as a norm of 0
    assert np.isinf(updates[0]) and int(state.clip.nonfinite) == 1 and int(state.count) == 6


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
def test_outlier_is_clipped_to_a_past_norm(quantile):
    """Also after one norm, and at a high quantile."""
    tx = lo.clip_by_norm_quantile(quantile, window=20)
    state, update = tx.init(jnp.zeros(1)), jax.jit(tx.update)
    for before in range(1, 31):
        _, state = update(jnp.ones(1), state)
        if before in (1, 3, 9, 30):
            np.testing.assert_allclose(update(jnp.array([1e6]), state)[0], [1.0], rtol=1e-6)


def test_clip_states_are_found_in_chains():
    tx = optax.chain(lo.clip_by_global_norm(1.0), lo.guard(optax.chain(lo.clip_by_norm_quantile())))
    state = tx.init(jnp.zeros(2))
    assert len(lo.find_states(state, lo.transforms.ClipByGlobalNormState)) == 2
    assert len(lo.find_states(state, lo.transforms.GuardState)) == 1
    assert lo.find_states(state, lo.transforms.EmaState) == []
    nested = lo.guard(optax.chain(lo.clip_by_global_norm(1.0), lo.guard(lo.sgd(0.1))))
    assert len(lo.find_states(nested.init(jnp.zeros(2)), lo.transforms.GuardState)) == 2


def test_clip_makes_no_full_size_copy():
    """The norm for extreme cases is computed in a branch that returns only scalars."""
    g = {"a": jnp.zeros((64, 64)), "b": jnp.zeros((64, 64))}
    jaxpr = jax.make_jaxpr(lambda g: clipped(g, 1.0))(g)
    (branch,) = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "cond"]
    assert all(v.aval.shape == () for v in branch.outvars)
