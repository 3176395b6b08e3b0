"""`jax.export` with symbolic batch and time, for CPU, CUDA and TPU, is exact."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from build_models import language_model, sequence_model
from compiled import assert_same, optimized
from flax import nnx

import lstm_optax as lo
from lstm_optax.lstm.backends import fused
from lstm_optax.lstm.native import library

T, B, F, H, V = 5, 3, 2, 4, 6
PLATFORMS = ["cpu", "cuda", "tpu"]


@pytest.fixture(autouse=True)
def fused_backend(monkeypatch):
    """The calls of the native backend are not exported; `auto` selects the fused one instead."""
    monkeypatch.setattr(library, "missing", lambda: "it is not exported")


def exported(function, symbolic, *arguments):
    """Return outputs of the exported function and of the function itself.

    Args:
      symbolic: axis names of each argument, such as "t, b, _"; None for a static argument.
    """
    scope = jax.export.SymbolicScope()
    shapes = [
        jax.eval_shape(lambda a=argument: a)
        if axes is None
        else jax.tree.map(
            lambda leaf, axes=axes: jax.ShapeDtypeStruct(
                jax.export.symbolic_shape(axes, like=leaf.shape, scope=scope), leaf.dtype
            ),
            argument,
        )
        for argument, axes in zip(arguments, symbolic, strict=True)
    ]
    function = jax.jit(function)
    program = jax.export.export(function, platforms=PLATFORMS)(*shapes)
    assert program.platforms == tuple(PLATFORMS)
    both = jax.jit(program.call), function
    # without optimizations, the two programs may differ in their last bits
    return [optimized(each.lower(*arguments))(*arguments) for each in both]


def same_bits(found, expected):
    assert_same(found, expected)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected))


def draw(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def params():
    return lo.LSTMParams(draw(F, 4 * H, seed=1), draw(H, 4 * H, seed=2) / 2, draw(4 * H, seed=3))


LENGTHS = jnp.array([5, 2, 4], jnp.int32)
RESETS = jnp.arange(T)[:, None] == jnp.array([[2, 1, 3]])


def test_sequence_gradient_exports():
    def run(params, x, lengths, resets):
        def loss(params, x):
            options = dict(seq_lengths=lengths, resets=resets, backend="fused")
            outputs, last = lo.lstm_sequence(params, x, **options)
            return jnp.sum(outputs**2) + jnp.sum(last.c), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    axes = None, "t, b, _", "b", "t, b"
    same_bits(*exported(run, axes, params(), draw(T, B, F), LENGTHS, RESETS))


@pytest.mark.parametrize("cached", [2**23, 4 * H * B * T - 1])
def test_symbolic_size_is_compared_when_called(monkeypatch, cached):
    """The program without a gradient, below and above the cache limit."""
    monkeypatch.setattr(fused, "_CACHE_ENTRIES", cached)
    run = lambda params, x: lo.lstm_sequence(params, x, backend="fused")  # noqa: E731
    same_bits(*exported(run, (None, "t, b, _"), params(), draw(T, B, F)))


def test_sizes_beyond_int32_are_not_cached():
    for sizes in ((2**12, 2**11, 1), (2**31, 2**10, 2**10), (2**23 + 1, 1, 1)):
        symbolic = fused._fits_cache(*map(jnp.float32, sizes))
        assert bool(symbolic) == fused._fits_cache(*sizes) == (sizes[0] == 2**12)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "backend, gradient",
    [("fused", "stored"), ("fused", "remat"), ("fused", "autodiff"), ("reference", "stored")],
)
def test_every_option_exports(backend, gradient, reverse):
    options = dict(
        backend=backend,
        gradient=gradient,
        reverse=reverse,
        cotangent_clip=lo.CotangentNormClip(gates=1.0),
    )

    def run(params, x, lengths, resets, detach):
        def loss(params, x):
            outputs, last = lo.lstm_sequence(
                params, x, seq_lengths=lengths, resets=resets, detach=detach, **options
            )
            return jnp.sum(outputs**2) + jnp.sum(last.c), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    detach = jnp.arange(T) % 2 == 0
    axes = None, "t, b, _", "b", "t, b", "t"
    same_bits(*exported(run, axes, params(), draw(T, B, F), LENGTHS, RESETS, detach))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, dict(num_layers=2, bidirectional=True), dict(time_major=False), dict(dtype=jnp.bfloat16)],
    ids=str,
)
def test_layer_and_step_export(options):
    lstm = lo.LSTM(F, H, **options, rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(lstm)
    axes, x = ("t, b, _", draw(T, B, F)) if lstm.time_major else ("b, t, _", draw(B, T, F))
    call = lambda weights, x, n: nnx.merge(graphdef, weights)(x, seq_lengths=n)  # noqa: E731
    same_bits(*exported(call, (None, axes, "b"), weights, x, LENGTHS))
    if not lstm.directions[1:]:
        step = lambda weights, x, carry, done: nnx.merge(graphdef, weights).step(  # noqa: E731
            x, carry, resets=done
        )
        carry = jax.tree.map(lambda s: draw(*s.shape), lstm.initial_carry(B))
        axes = None, "b, _", "b, _", "b"
        same_bits(*exported(step, axes, weights, draw(B, F), carry, LENGTHS > 4))


def language_step(optimizer, **options):
    """Return a train step of a language model with both activation penalties, and its arguments."""
    sizes = dict(in_features=3, hidden_features=H)
    model = language_model(V, **sizes, **options, rngs=nnx.Rngs(params=0))
    graphdef, weights = nnx.split(model)

    def loss(weights, carry, batch, key):
        tokens, targets = batch
        model = nnx.merge(graphdef, weights)
        raw, dropped, carry = model.hidden(tokens, carry, rngs=nnx.Rngs(dropout=key))
        total, count = lo.token_losses(model.logits(dropped), targets)
        terms = lo.activation_regularizer(dropped, targets >= 0)
        return total / count + terms + lo.temporal_activation_regularizer(raw), carry

    state = lo.init_state(weights, optimizer, model.lstm.initial_carry(B), jax.random.key(0))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, V, (T, B)), jnp.int32)
    return lo.make_step(loss, optimizer), state, (tokens, tokens.at[1, 1].set(-1))


def check_step(optimizer, **options):
    step, state, batch = language_step(optimizer, **options)

    def run(params, opt_state, carry, key, batch):
        fields = dict(params=params, opt_state=opt_state, carry=carry, key=key)
        state_after, metrics = step(state._replace(**fields), batch)
        return state_after.params, state_after.carry, metrics.loss

    arguments = state.params, state.opt_state, state.carry, state.key, batch
    found, expected = exported(run, (None, None, "b, _", None, "t, b"), *arguments)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.isfinite(expected[-1]) and expected[-1] > 0


@pytest.mark.slow
def test_train_step_exports():
    check_step(optax.chain(lo.clip_by_global_norm(1.0), lo.nadam(1e-2)))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [lo.awd_sgd(0.1), lo.rmsprop_momentum(0.01)])
def test_train_step_with_dropout_exports(optimizer):
    rates = dict(dropout=0.2, locked_dropout=True, weight_dropout=0.2, embedding_dropout=0.2)
    check_step(optimizer, num_layers=2, **rates)


@pytest.mark.slow
def test_sequence_losses_export():
    model = sequence_model(2, in_features=F, hidden_features=H, rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(model)

    def run(weights, x, targets):
        loss = lambda weights: lo.sequence_losses(nnx.merge(graphdef, weights)(x)[0], targets)[0]  # noqa: E731
        return jax.value_and_grad(loss)(weights)

    same_bits(*exported(run, (None, "t, b, _", "b, _"), weights, draw(T, B, F), draw(B, 2)))


@pytest.mark.parametrize("axes", ["t, b", "t, 3", "5, b"])
def test_norms_of_symbolic_sizes(axes):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    clip = lo.clip_by_global_norm(0.1)

    def function(x):
        return lo.global_norm(x), clip.update(x, clip.init(x))

    for scale in (1, 1e-30, 1e30):
        chex.assert_trees_all_equal(*exported(function, [axes], scale * x))
