"""Clipping inside back-propagation through time is exact, overflow-safe and off by default."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from compiled import optimized
from cudnn_stand_in import CPU_BACKENDS
from flax import linen, nnx

from lstm_optax import (
    LSTM,
    CotangentClip,
    CotangentNormClip,
    LSTMParams,
    LSTMState,
    clip_by_global_norm,
    clip_cotangent,
    clip_cotangent_norm,
    global_norm,
    lstm_cell,
    lstm_sequence,
)
from lstm_optax.lstm.cell import product

pytestmark = pytest.mark.slow  # compile many programs

T, B, F, H = 6, 3, 2, 4
WHOLE = dict(rtol=1e-10, atol=1e-13)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    params = LSTMParams(
        rng.normal(size=(F, 4 * H)), 2 * rng.normal(size=(H, 4 * H)), rng.normal(size=4 * H)
    )
    carry = LSTMState(rng.normal(size=(B, H)), rng.normal(size=(B, H)))
    return params, rng.normal(size=(T, B, F)), carry


def weights(seed=9):
    """Return the weights of the outputs and of the last state in the loss."""
    rng = np.random.default_rng(seed)
    last = LSTMState(rng.normal(size=(B, H)), rng.normal(size=(B, H)))
    return rng.normal(size=(T, B, H)), last


def options_of(mixed):
    if not mixed:
        return {}
    resets = np.zeros((T, B), bool)
    resets[2, 1] = True
    return dict(seq_lengths=np.array([6, 4, 0]), resets=resets, reverse=True)


def gradients(params, x, carry, **options):
    def loss(params, x, carry):
        results, factors = lstm_sequence(params, x, carry, **options), weights()
        return sum(jax.tree.leaves(jax.tree.map(lambda w, r: jnp.sum(w * r), factors, results)))

    return jax.grad(loss, argnums=(0, 1, 2))(params, x, carry)


def by_hand(params, x, carry, cut, **options):
    found = oracle.gradients(*params, x, *carry, weights()[0], *weights()[1], cut=cut, **options)
    return (
        LSTMParams(found["kernel_ih"], found["kernel_hh"], found["bias"]),
        found["x"],
        LSTMState(found["h0"], found["c0"]),
    )


def by_value(clip):
    def cut(t, name, g):
        bound = getattr(clip, name)
        if bound is None:
            return g
        low, high = bound if isinstance(bound, tuple) else (-bound, bound)
        return np.clip(g, low, high)

    return cut


def by_norm(clip):
    def cut(t, name, g):
        bound = getattr(clip, name)
        if bound is None:
            return g
        return g * np.minimum(1, bound / np.maximum(np.linalg.norm(g, axis=1), 1e-99))[:, None]

    return cut


ALL = [
    CotangentClip(h=0.5, c=0.4, gates=(-0.1, 0.05)),
    CotangentNormClip(h=0.9, c=0.6, gates=0.1),
]
ONE = [CotangentClip(h=0.3), CotangentClip(c=(-0.2, 0.4)), CotangentNormClip(c=0.4)]


@pytest.mark.parametrize(
    "clip, backend, mixed",
    [
        *((clip, backend, mixed) for clip in ALL for backend in CPU_BACKENDS for mixed in (0, 1)),
        *((clip, "fused", 0) for clip in ONE),
    ],
    ids=str,
)
def test_clipped_gradient_equals_oracle(clip, backend, mixed, x64):
    options = options_of(mixed)
    cut = (by_value if isinstance(clip, CotangentClip) else by_norm)(clip)
    found = gradients(*draw(), backend=backend, cotangent_clip=clip, **options)
    chex.assert_trees_all_close(found, by_hand(*draw(), cut, **options), **WHOLE)
    free = gradients(*draw(), backend=backend, **options)
    assert not np.allclose(found[0].kernel_hh, free[0].kernel_hh, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CotangentClip, CotangentNormClip])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_unreached_bound_changes_no_bit(backend, kind):
    inputs = jax.tree.map(jnp.float32, draw())
    options = dict(backend=backend, **options_of(True))
    wide = options | dict(cotangent_clip=kind(99.0, 99.0, 99.0))

    def found(options):  # without optimizations, the programs differ in their last bits
        return optimized(jax.jit(partial(gradients, **options)).lower(*inputs))(*inputs)

    chex.assert_trees_all_equal(found(options), found(wide))
    tight = kind(0.1, 0.1, 0.1)
    chex.assert_trees_all_equal(
        lstm_sequence(*inputs, **options), lstm_sequence(*inputs, cotangent_clip=tight, **options)
    )


def silence_then_signal(time=300, hidden=8):
    """Recurrent weights so large that the gradient grows fivefold at each step without input."""
    rng = np.random.default_rng(0)
    kernel_hh = np.tile(20 * np.linalg.qr(rng.normal(size=(hidden, hidden)))[0], 4)
    kernel_ih = rng.normal(size=(1, 4 * hidden))
    params = LSTMParams(kernel_ih, kernel_hh, np.zeros(4 * hidden))
    x = np.zeros((time, 2, 1))
    x[-3:] = 1.0
    return jax.tree.map(jnp.float32, (params, x))


@pytest.mark.parametrize(
    "clip",
    [
        CotangentClip(gates=10.0),
        CotangentNormClip(h=1.0),
    ],
    ids=str,
)
def test_clip_per_step_prevents_overflow(clip):
    params, x = silence_then_signal()

    def loss(params, clip):
        outputs, _ = lstm_sequence(params, x, cotangent_clip=clip)
        return jnp.sum(outputs[-1])

    value, grads = jax.value_and_grad(loss)(params, None)
    assert np.isfinite(value) and not np.all(np.isfinite(grads.bias))
    assert not np.isfinite(global_norm(grads))
    for norm_clip in (optax.clip_by_global_norm(1.0), clip_by_global_norm(1.0)):
        clipped = norm_clip.update(grads, norm_clip.init(params), params)[0]
        assert not all(np.all(np.isfinite(leaf)) for leaf in clipped)
    same, grads = jax.value_and_grad(loss)(params, clip)
    assert same == value
    assert all(np.all(np.isfinite(leaf)) and np.any(leaf) for leaf in grads)


def test_no_clip_leaves_program_unchanged():
    """The program without a clip equals a scan of the plain cell written here by hand."""
    params, x, carry = jax.tree.map(jnp.float32, draw())

    def by_hand(params, x, carry):
        def body(state, x):
            h, c = state
            z = product(x, params.kernel_ih, c.dtype) + product(h, params.kernel_hh, c.dtype)
            i, f, g, o = jnp.split(z + jnp.expand_dims(params.bias, 0), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return LSTMState(h, c), h

        return jax.lax.scan(body, carry, x)[1].sum()

    def ours(params, x, carry, **options):
        return lstm_sequence(params, x, carry, backend="reference", **options)[0].sum()

    def program(f):
        return str(jax.make_jaxpr(jax.grad(f))(params, x, carry))

    assert program(ours) == program(by_hand)
    empty = lambda *args: ours(*args, cotangent_clip=CotangentClip())  # noqa: E731
    assert program(empty) == program(by_hand)
    clipped = lambda *args: ours(*args, cotangent_clip=CotangentClip(h=1.0))  # noqa: E731
    assert program(clipped) != program(by_hand)


def test_bounds_may_be_traced():
    """A sweep over bounds is one compilation."""
    inputs = jax.tree.map(jnp.float32, draw())
    bounds = jnp.array([0.05, 0.3, 99.0])
    swept = jax.vmap(lambda b: gradients(*inputs, cotangent_clip=CotangentClip(gates=b)))(bounds)
    for i, bound in enumerate(bounds):
        one = gradients(*inputs, cotangent_clip=CotangentClip(gates=float(bound)))
        seen = jax.tree.map(lambda s, i=i: s[i], swept)
        chex.assert_trees_all_close(seen, one, rtol=1e-5, atol=1e-6)


def pulled(f, x, g):
    """Return the cotangent of f's input for the cotangent g of its output."""
    return jax.vjp(f, x)[1](g)[0]


def test_clips_each_entry():
    x = jnp.arange(6.0)
    g = jnp.array([-jnp.inf, -3.0, 0.5, 2.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(clip_cotangent(x, -1, 2), x)
    back = pulled(lambda x: clip_cotangent(x, -1, 2), x, g)
    np.testing.assert_array_equal(back, [-1, -1, 0.5, 2, 2, np.nan])
    back = pulled(lambda x: clip_cotangent(x, jnp.float32(-1), np.float64(0.25)), x, g)
    np.testing.assert_array_equal(back, [-1, -1, 0.25, 0.25, 0.25, np.nan])


@pytest.mark.parametrize(
    "row, expected",
    [
        ([3.0, 4.0, 0.0], [0.6, 0.8, 0.0]),
        ([0.3, 0.4, 0.0], [0.3, 0.4, 0.0]),
        ([3e30, 4e30, 0.0], [0.6, 0.8, 0.0]),
        ([3e38, 3e38, 3e38], [3**-0.5] * 3),
        ([np.inf, -np.inf, 5.0], [0.5**0.5, -(0.5**0.5), 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1e-30, 0.0, 0.0], [1e-30, 0.0, 0.0]),
        ([np.nan, 1.0, 0.0], [np.nan] * 3),
    ],
    ids=str,
)
def test_clips_each_row_by_norm(row, expected):
    g = jnp.array([row, [0.1, 0.2, 0.3]])
    back = pulled(lambda x: clip_cotangent_norm(x, 1.0), jnp.zeros((2, 3)), g)
    if np.any(np.isnan(expected)):
        assert np.isnan(back[0, 0])
    else:
        np.testing.assert_allclose(back[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(back[1], g[1])


def test_norm_axis_may_be_any_or_all():
    g = jnp.array([[3.0, 0.0], [4.0, 1.0]])
    columns = pulled(lambda x: clip_cotangent_norm(x, 1.0, axis=0), g, g)
    np.testing.assert_allclose(columns, [[0.6, 0.0], [0.8, 1.0]], rtol=1e-6)
    whole = pulled(lambda x: clip_cotangent_norm(x, 1.0, axis=None), g, g)
    np.testing.assert_allclose(whole, g / 26**0.5, rtol=1e-6)
    nothing = pulled(lambda x: clip_cotangent_norm(x, 0.0), g, g)
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_clip_keeps_dtype(dtype):
    g = jnp.array([300, 1, 0], dtype)
    for f in (lambda x: clip_cotangent(x, -1.0, 1.0), lambda x: clip_cotangent_norm(x, 1.0)):
        back = pulled(f, g, g)
        assert back.dtype == dtype
        np.testing.assert_allclose(back[0], 1, rtol=1e-2)


def test_clips_real_leaves_only(key):
    tree = {
        "w": jnp.ones(2),
        "count": jnp.int32(3),
        "key": key,
        "none": None,
        "z": jnp.ones(2, complex),
    }

    def loss(w, f):
        out = f(tree | {"w": w})
        assert out["count"] is tree["count"] and out["z"] is tree["z"] and out["key"] is key
        return 5 * jnp.sum(out["w"]) * out["count"]

    np.testing.assert_array_equal(jax.grad(loss)(tree["w"], lambda t: clip_cotangent(t, -1, 1)), 1)
    norm = jax.grad(loss)(tree["w"], lambda t: clip_cotangent_norm(t, 1.0))
    np.testing.assert_allclose(norm, 0.5**0.5, rtol=1e-6)
    back = jax.vjp(lambda n: clip_cotangent(n, -1, 1), 3)[1](np.zeros((), jax.dtypes.float0))
    assert back[0].dtype == jax.dtypes.float0


def test_layer_clip_equals_sequence_clip():
    """A tiny bound determines the gradient of every bias, in each layer and direction."""
    clip = CotangentClip(gates=1e-4)
    lstm = LSTM(F, H, num_layers=2, bidirectional=True, cotangent_clip=clip, rngs=nnx.Rngs(0))
    x = jnp.float32(draw()[1])
    grads = nnx.grad(lambda m: jnp.sum(m(x)[0] * jnp.arange(1.0, 2 * H + 1)[None, None]))(lstm)
    for path, leaf in nnx.to_flat_state(grads):
        if path[-1] == "bias":
            assert 1e-4 < np.abs(leaf[...]).max() <= 1.001e-4 * B * T
    again = LSTM.from_params(lstm.params(), bidirectional=True, cotangent_clip=clip)
    assert again.cotangent_clip == clip


def test_clips_h_in_custom_scan():
    params, x, carry = jax.tree.map(jnp.float32, draw())

    def by_hand(params):
        def body(state, x):
            h, c = lstm_cell(params, x, state)
            h = clip_cotangent(h, -0.2, 0.2)
            return LSTMState(h, c), h

        return jnp.sum(jax.lax.scan(body, carry, x)[1])

    def ours(params):
        return jnp.sum(lstm_sequence(params, x, carry, cotangent_clip=CotangentClip(h=0.2))[0])

    chex.assert_trees_all_close(jax.grad(by_hand)(params), jax.grad(ours)(params), rtol=1e-4)


class ClipOutput(nnx.Module):
    """A user's module that clips the gradient of its output."""

    def __init__(self, inner, bound):
        self.inner, self.bound = inner, bound

    def __call__(self, x):
        return clip_cotangent(self.inner(x), -self.bound, self.bound)


def ours_and_free(params, x, clip):
    """Return the clipped gradient of the two kernels, which must differ from the unclipped one."""
    by = lambda clip: lambda p: jnp.sum(lstm_sequence(p, x, cotangent_clip=clip)[0])  # noqa: E731
    ours, free = (jax.grad(by(c))(params)[:2] for c in (clip, None))
    assert not np.allclose(free[1], ours[1], rtol=1e-2)
    return ours


@pytest.mark.slow
def test_clips_gates_in_nnx_rnn():
    x = jnp.float32(draw()[1])
    cell = nnx.OptimizedLSTMCell(F, H, rngs=nnx.Rngs(0))
    params = LSTMParams(cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...])
    cell.dense_i, cell.dense_h = ClipOutput(cell.dense_i, 0.05), ClipOutput(cell.dense_h, 0.05)
    rnn, carry = nnx.RNN(cell, time_major=True), (jnp.zeros((B, H)), jnp.zeros((B, H)))
    grads = nnx.grad(lambda rnn: jnp.sum(rnn(x, initial_carry=carry)))(rnn)["cell"]
    theirs = tuple(grads[part]["inner"]["kernel"][...] for part in ("dense_i", "dense_h"))
    ours = ours_and_free(params, x, CotangentClip(gates=0.05))
    chex.assert_trees_all_close(theirs, ours, rtol=1e-4, atol=1e-6)


class ClippedCell(linen.RNNCellBase):
    """A user's Linen cell that clips the gradient of h."""

    features: int
    bound: float

    def setup(self):
        self.cell = linen.LSTMCell(self.features)

    def __call__(self, carry, x):
        (c, h), _ = self.cell(carry, x)
        h = clip_cotangent(h, -self.bound, self.bound)
        return (c, h), h

    def initialize_carry(self, rng, shape):
        return self.cell.initialize_carry(rng, shape)

    @property
    def num_feature_axes(self):
        return 1


def of_linen(tree):
    """Return the parameters of a Linen cell, stored gate by gate, as LSTMParams."""
    join = lambda part, leaf: jnp.concatenate([tree[part + g][leaf] for g in "ifgo"], -1)  # noqa: E731
    return LSTMParams(join("i", "kernel"), join("h", "kernel"), join("h", "bias"))


@pytest.mark.slow
def test_clips_h_in_linen():
    x, rnn = jnp.float32(draw()[1]), linen.RNN(ClippedCell(H, 0.5), time_major=True)
    variables = rnn.init(jax.random.key(0), x)
    grads = jax.grad(lambda v: jnp.sum(rnn.apply(v, x)))(variables)
    theirs, params = (of_linen(tree["params"]["cell"]["cell"]) for tree in (grads, variables))
    ours = ours_and_free(params, x, CotangentClip(h=0.5))
    chex.assert_trees_all_close(theirs[:2], ours, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_clips_gates_in_linen():
    x, rnn = jnp.float32(draw()[1]), linen.RNN(linen.LSTMCell(H), time_major=True)
    variables = rnn.init(jax.random.key(0), x)

    def clip_gates(call, args, kwargs, context):
        out = call(*args, **kwargs)
        in_a_cell = isinstance(context.module.parent, linen.LSTMCell)
        return clip_cotangent(out, -0.05, 0.05) if in_a_cell else out

    def loss(variables):
        with linen.intercept_methods(clip_gates):
            return jnp.sum(rnn.apply(variables, x))

    grads = jax.grad(loss)(variables)
    theirs, params = (of_linen(tree["params"]["cell"]) for tree in (grads, variables))
    ours = ours_and_free(params, x, CotangentClip(gates=0.05))
    chex.assert_trees_all_close(theirs[:2], ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [CotangentClip, CotangentNormClip])
def test_rejects_invalid_bounds(kind):
    params, x, _ = jax.tree.map(jnp.float32, draw())
    for bad, message in [
        (kind(h=-1.0), r"cotangent_clip.h: "),
        (kind(c=float("nan")), r"cotangent_clip.c: "),
        (kind(h=[-1.0, 1.0]), r"cotangent_clip.h: .*\[-1.0, 1.0\].* number"),
        (kind(gates=(1.0, 2.0, 3.0)), r"cotangent_clip.gates: .*\(1.0, 2.0, 3.0\).* number"),
        (kind(c="1"), "cotangent_clip.c: .*'1'.* number"),
        (5.0, "cotangent_clip is 5.0; expected a CotangentClip or a CotangentNormClip"),
    ]:
        with pytest.raises(ValueError, match=message):
            lstm_sequence(params, x, cotangent_clip=bad)
        with pytest.raises(ValueError, match=message):
            LSTM(F, H, cotangent_clip=bad, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="cell"):
        kind(cell=1.0)
    with pytest.raises(ValueError, match="the bounds are 2 and 1, but low must be at most high"):
        clip_cotangent(x, 2, 1)
    with pytest.raises(ValueError, match="cotangent_clip.gates: the bounds are 2.0 and 1.0"):
        lstm_sequence(params, x, cotangent_clip=CotangentClip(gates=(2.0, 1.0)))
    with pytest.raises(ValueError, match=r"cotangent_clip.h: max_norm is \(1.0, 2.0\), but must"):
        lstm_sequence(params, x, cotangent_clip=CotangentNormClip(h=(1.0, 2.0)))
    with pytest.raises(
        ValueError, match="max_norm is -1, but must be a number of at least 0, or inf"
    ):
        clip_cotangent_norm(x, -1)
