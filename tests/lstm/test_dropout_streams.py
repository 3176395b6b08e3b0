"""Random streams that a layer or a model stores for its dropout, like Flax's modules."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from build_models import language_model, sequence_model
from flax import nnx

import lstm_optax as lo
from lstm_optax.interop import lstm_to_torch

T, B, F, H, V = 5, 3, 2, 8, 6
KINDS = ["layer", "language model", "sequence model"]


def make(kind, rngs=None, **rates):
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if kind == "layer":
        return lo.LSTM(F, H, num_layers=2, **rates, rngs=rngs)
    if kind == "language model":
        sizes = dict(in_features=4, hidden_features=H, num_layers=2)
        return language_model(V, **sizes, **rates, rngs=rngs)
    sizes = dict(in_features=F, hidden_features=H, num_layers=2)
    return sequence_model(3, **sizes, **rates, rngs=rngs)


def inputs(kind):
    rng = np.random.default_rng(0)
    if kind == "language model":
        return rng.integers(0, V, (T, B)).astype(np.int32)
    return rng.normal(size=(T, B, F)).astype(np.float32)


@pytest.mark.parametrize(
    "kind, rate",
    [
        ("layer", "dropout"),
        ("layer", "weight_dropout"),
        pytest.param("language model", "embedding_dropout", marks=pytest.mark.slow),
        *[pytest.param(kind, "dropout", marks=pytest.mark.slow) for kind in KINDS[1:]],
        *[pytest.param(kind, "weight_dropout", marks=pytest.mark.slow) for kind in KINDS[1:]],
    ],
)
def test_call_draws_from_kept_stream(kind, rate):
    model, x = make(kind, **{rate: 0.5}), inputs(kind)
    first, second = model(x)[0], model(x)[0]
    assert not np.allclose(first, second)
    again = make(kind, **{rate: 0.5})
    np.testing.assert_array_equal(again(x)[0], first)  # the same seed draws the same masks
    np.testing.assert_array_equal(again(x)[0], second)
    plain = model(x, deterministic=True)[0]
    model.eval()
    np.testing.assert_array_equal(model(x)[0], plain)


@pytest.mark.parametrize("kind", KINDS)
def test_passed_rngs_override_stream(kind):
    model, x = make(kind, dropout=0.5), inputs(kind)
    before = jax.tree.leaves(nnx.state(model, nnx.RngCount))
    given = [model(x, rngs=nnx.Rngs(dropout=seed))[0] for seed in (1, 1, 2)]
    chex.assert_trees_all_equal(given[0], given[1])
    assert not np.allclose(given[0], given[2])
    chex.assert_trees_all_equal(before, jax.tree.leaves(nnx.state(model, nnx.RngCount)))
    stateless = make(kind, nnx.Rngs(params=0), dropout=0.5)
    nnx.update(stateless, nnx.state(model, nnx.Param))
    chex.assert_trees_all_equal(stateless(x, rngs=nnx.Rngs(dropout=1))[0], given[0])


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_without_rate_or_stream(kind):
    """Models without dropout, and models for a key in the loss, have no random state."""
    for model in (make(kind), make(kind, nnx.Rngs(params=0), dropout=0.5, weight_dropout=0.5)):
        assert not jax.tree.leaves(nnx.state(model, nnx.RngState))
        _, params = nnx.split(model)
        chex.assert_trees_all_equal(params, nnx.state(model, nnx.Param))
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        model(inputs(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_depend_only_on_parameter_seed(kind):
    chex.assert_trees_all_equal(
        nnx.state(make(kind), nnx.Param),
        nnx.state(make(kind, nnx.Rngs(params=0), dropout=0.5), nnx.Param),
        nnx.state(make(kind, nnx.Rngs(params=0, dropout=1), dropout=0.5), nnx.Param),
    )


def test_streams_split_and_merge():
    model, x = make("sequence model", dropout=0.5), inputs("sequence model")
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert {type(leaf) for _, leaf in nnx.to_flat_state(rest)} <= {nnx.RngKey, nnx.RngCount}
    first = nnx.clone(model)(x)[0]

    @jax.jit
    def loss(params, rest):
        outputs = nnx.merge(graphdef, params, rest)(x)[0]
        return jnp.sum(outputs**2), outputs

    (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(params, rest)
    np.testing.assert_allclose(outputs, first, rtol=1e-6)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(model(x)[0], first, rtol=1e-6)


@pytest.mark.slow
def test_nnx_optimizer_trains_with_stream():
    model, x = make("sequence model", dropout=0.2), inputs("sequence model")
    optimizer = nnx.Optimizer(model, lo.nadam(0.01), wrt=nnx.Param)

    @nnx.jit
    def train(model, optimizer):
        loss, gradients = nnx.value_and_grad(lambda m: jnp.mean(jnp.square(m(x)[0] - 1)))(model)
        optimizer.update(model, gradients)
        return loss

    before = [int(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.RngCount))]
    losses = [float(train(model, optimizer)) for _ in range(60)]
    after = [int(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.RngCount))]
    assert [a - b for a, b in zip(after, before, strict=True)] == [60] * len(before)
    assert np.mean(losses[-10:]) < 0.5 * losses[0]


def test_from_params_keeps_stream():
    plain = make("layer")
    lstm = lo.LSTM.from_params(plain.params(), dropout=0.5, rngs=nnx.Rngs(0))
    x = inputs("layer")
    assert not np.allclose(lstm(x)[0], lstm(x)[0])
    np.testing.assert_array_equal(lstm(x, deterministic=True)[0], plain(x)[0])
    without = lo.LSTM.from_params(plain.params(), dropout=0.5)
    assert not jax.tree.leaves(nnx.state(without, nnx.RngState))
    chex.assert_trees_all_equal(
        lo.interop.lstm_from_torch(lstm_to_torch(lstm)).params(), lstm.params()
    )


@pytest.mark.slow
def test_fit_trains_parameters_without_stream():
    """`fit` and `make_step` take the parameters only; the random state stays outside."""
    model = make("layer", dropout=0.5)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, carry, batch, key):
        outputs, carry = nnx.merge(graphdef, params, rest)(batch, carry, rngs=nnx.Rngs(dropout=key))
        return jnp.mean(outputs**2), carry

    optimizer = optax.chain(lo.clip_by_global_norm(1.0), lo.sgd(0.1))
    state = lo.init_state(params, optimizer, model.initial_carry(B), jax.random.key(0))
    batches = [inputs("layer")] * 4
    result = lo.fit(lo.make_step(loss, optimizer), state, lambda p: batches[p], steps=4)
    assert np.isfinite(result.history[-1]["train_loss"])


def test_init_state_rejects_streams():
    _, everything = nnx.split(make("layer", dropout=0.5))
    message = (
        r"params has a random key at dropout\.rngs\.key.*nnx.split\(model, nnx.Param, \.\.\.\)"
    )
    with pytest.raises(ValueError, match=message):
        lo.init_state(everything, lo.sgd(0.1), (), jax.random.key(0))
