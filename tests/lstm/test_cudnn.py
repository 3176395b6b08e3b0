"""The cuDNN backend, with a stand-in for cuDNN, equals the reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import B, F, H, T, draw, draw_output_weights, make_options, weighted_gradients
from cudnn_stand_in import install
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.experimental import rnn
from plain import plain_for

from lstm_optax import LSTM, CotangentClip, GradientFlow, LSTMParams, lstm_sequence
from lstm_optax.lstm.backends import cudnn


@pytest.fixture
def calls(monkeypatch):
    return install(monkeypatch)


def check_equals_reference(shape_of, lengths, reverse, seed):
    arguments = jax.tree.map(jnp.float32, draw(shape_of, seed))
    options = make_options(lengths, False, reverse, *shape_of[:2], seed)
    results = [lstm_sequence(*arguments, backend=b, **options) for b in ("cudnn", "reference")]
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    weights = jax.tree.map(jnp.float32, draw_output_weights(*results[0]))
    grads = [weighted_gradients(b, *arguments, weights, options) for b in ("cudnn", "reference")]
    chex.assert_trees_all_close(*grads, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("lengths", plain_for([False, True], [True]))
@pytest.mark.parametrize("reverse", plain_for([False, True], [True]))
def test_equals_reference(lengths, reverse, calls):
    check_equals_reference((T, B, F, H), lengths, reverse, seed=1)
    assert len(calls) == 2  # one for the results, one for the gradients


@pytest.mark.soak
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape_of=st.tuples(*[st.integers(1, 5)] * 4),
    lengths=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_reference_random_shapes(shape_of, lengths, reverse, seed, calls):
    check_equals_reference(shape_of, lengths, reverse, seed)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_empty_rows_have_zero_gradient(reverse, calls):
    """Empty rows and NaN in the padding reach no parameter; the carry passes unchanged."""
    params, x, carry = jax.tree.map(jnp.float32, draw())
    lengths = jnp.array([0, 2, 0])
    x = jnp.where((jnp.arange(T)[:, None] < lengths[None, :])[:, :, None], x, jnp.nan)

    def loss(params, x, carry, rows):
        rows = np.array(rows)
        outputs, last = lstm_sequence(
            params,
            x[:, rows],
            jax.tree.map(lambda s: s[rows], carry),
            seq_lengths=lengths[rows],
            reverse=reverse,
            backend="cudnn",
        )
        return 2 * outputs.sum() + 3 * last.h.sum() + 5 * last.c.sum(), (outputs, last)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    (by_params, by_x, by_carry), (outputs, last) = gradient(params, x, carry, (0, 1, 2))
    (alone, _, _), _ = gradient(params, x, carry, (1,))
    chex.assert_trees_all_close(by_params, alone, rtol=1e-5)
    for row in (0, 2):
        assert not outputs[:, row].any() and not by_x[:, row].any()
        chex.assert_trees_all_equal((last.h[row], last.c[row]), (carry.h[row], carry.c[row]))
        assert (by_carry.h[row] == 3).all() and (by_carry.c[row] == 5).all()
    assert not by_x[2:].any() and by_x[:2, 1].all()


@pytest.mark.slow
def test_stack_dropout_equals_fused(calls):
    x = np.random.default_rng(0).normal(size=(T, B, F)).astype(np.float32)
    lengths = np.array([5, 2, 0])

    def results(backend):
        lstm = LSTM(
            F,
            H,
            num_layers=2,
            bidirectional=True,
            dropout=0.5,
            backend=backend,
            rngs=nnx.Rngs(params=0),
        )
        graph, state = nnx.split(lstm)

        def loss(state):
            run = nnx.merge(graph, state)
            outputs, carry = run(x, seq_lengths=lengths, rngs=nnx.Rngs(dropout=3))
            return jnp.sum(outputs**2) + sum(jnp.sum(s.h * s.c) for s in carry), (outputs, carry)

        return jax.jit(jax.grad(loss, has_aux=True))(state)

    chex.assert_trees_all_close(results("cudnn"), results("reference"), rtol=1e-4, atol=1e-5)
    assert [call["input_size"] for call in calls] == [F, F, 2 * H, 2 * H]
    for call in calls:
        assert call["num_layers"] == 1 and call["dropout"] == 0.0 and call["bidirectional"] is False
        assert call["hidden_size"] == H and call["shapes"][0][:2] == (B, T)


@pytest.mark.parametrize(
    "asked, taken",
    [(None, "HIGHEST"), ("float32", "HIGHEST"), ("default", "HIGHEST"), ("bfloat16", "HIGHEST")]
    + [("tensorfloat32", "HIGH"), ("high", "HIGH"), ("TF32_TF32_F32", "HIGH")],
)
def test_precision_is_exact_by_default(asked, taken, calls):
    with jax.default_matmul_precision(asked):
        jax.eval_shape(lambda: lstm_sequence(*draw(), dtype=jnp.float32, backend="cudnn"))
    assert calls[0]["precision"] == jax.lax.Precision[taken]
    with jax.default_matmul_precision(asked):  # JAX's own function
        assert rnn._lstm_cudnn_allow_tf32(calls[0]["precision"]) is (taken == "HIGH")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(resets=np.zeros((T, B), bool)), "it takes no resets"),
        (dict(cotangent_clip=CotangentClip(h=1.0)), "it takes no cotangent_clip"),
        (dict(detach=np.zeros(T, bool)), "it takes no detach"),
        (dict(probe=GradientFlow.zeros(T, B)), "it takes no probe"),
        (dict(gradient="remat"), "it takes no gradient='remat'"),
        (dict(gradient="autodiff"), "it takes no gradient='autodiff'"),
        (dict(dtype=jnp.bfloat16), "dtype is bfloat16"),
        (dict(dtype=jnp.float16), "dtype is float16"),
        (dict(x=np.zeros((0, B, F))), r"x has shape \(0, 3, 2\)"),
        (dict(x=np.zeros((T, 0, F)), carry=None), r"x has shape \(5, 0, 2\)"),
    ],
)
def test_unsupported_option_error_names_fused(change, message, calls):
    params, x, carry = draw()
    arguments = dict(params=params, x=x, carry=carry, backend="cudnn") | change
    with pytest.raises(ValueError, match=rf"cannot run.*{message}.*Use backend='fused'"):
        lstm_sequence(**arguments)
    assert not calls
    lstm_sequence(**arguments | dict(backend="fused"))


def test_rejects_float64(calls, x64):
    with pytest.raises(ValueError, match="dtype is float64"):
        lstm_sequence(*draw(), backend="cudnn")


def test_float32_products_with_bfloat16_parameters(calls):
    params, x, carry = draw()
    params = jax.tree.map(jnp.bfloat16, params)
    run = jax.tree_util.Partial(lstm_sequence, params, x, carry, dtype=jnp.float32)
    outputs, last = run(backend="cudnn")
    assert outputs.dtype == last.h.dtype == jnp.float32
    chex.assert_trees_all_close((outputs, last), run(backend="reference"), rtol=1e-5, atol=1e-6)


def no_gpu(platform=None):
    raise RuntimeError(f"Unknown backend {platform}")


@pytest.mark.parametrize("gpu, plugin", [(False, False), (True, False), (True, True)])
def test_error_names_missing_gpu_or_plugin(gpu, plugin, monkeypatch):
    """A GPU is checked first, then the plugin; `auto` needs neither."""
    monkeypatch.setattr(jax, "devices", (lambda platform=None: [platform]) if gpu else no_gpu)
    rest = type("plugin", (), {"compute_rnn_workspace_reserve_space_sizes": 0} if plugin else {})
    monkeypatch.setattr(rnn, "gpu_rnn", rest)
    expected = {(0, 0): "JAX sees no NVIDIA GPU", (1, 0): "came without cuDNN"}.get((gpu, plugin))
    if expected is None:
        assert cudnn.missing() is None
        return
    with pytest.raises(ValueError, match=f"{expected}.*Use backend='fused', or 'auto'"):
        lstm_sequence(*draw(), backend="cudnn")
    with pytest.raises(ValueError, match=f"takes no gradient='remat'; .*{expected}"):
        lstm_sequence(*draw(), backend="cudnn", gradient="remat")
    lstm_sequence(*draw())


@pytest.fixture
def traced_alone(monkeypatch):
    """Make cuDNN's primitives traceable without a GPU: set the size of their workspace."""
    sizes = lambda *shape: (8, 16)  # noqa: E731
    name = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(rnn.gpu_rnn, name, sizes, raising=False)
    monkeypatch.setattr(cudnn, "missing", lambda: None)


def test_gradient_is_two_cudnn_calls(traced_alone):
    params, x, carry = jax.tree.map(jnp.float32, draw())

    def loss(params, x, carry, lengths):
        outputs, last = lstm_sequence(params, x, carry, seq_lengths=lengths, backend="cudnn")
        return outputs.sum() + last.h.sum() + last.c.sum()

    lengths = jnp.array([5, 2, 0])
    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(params, x, carry, lengths)
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert names.count("rnn_fwd") == names.count("rnn_bwd") == 1
    assert "scan" not in names and "while" not in names and "dot_general" not in names
    (forward,) = (e for e in jaxpr.eqns if e.primitive.name == "rnn_fwd")
    count = 4 * H * (F + H + 2)
    assert [v.aval.shape for v in forward.invars] == [
        (B, T, F),
        (1, B, H),
        (1, B, H),
        (count,),
        (B,),
    ]
    assert forward.params["cudnn_allow_tf32"] is False
    found = jax.tree.map(jnp.shape, jax.eval_shape(jax.grad(loss), params, x, carry, lengths))
    assert found == jax.tree.map(jnp.shape, params)


def test_layouts_are_row_major(traced_alone):
    """Each array that crosses the calls with more than one axis has its layout stated.

    XLA may otherwise store an array in another order than cuDNN reads: on an H100, every result
    next to a transposition was wrong.
    """
    params, x, carry = jax.tree.map(jnp.float32, draw())

    def loss(params, x, carry):
        outputs, last = lstm_sequence(params, x, carry, backend="cudnn")
        return jnp.sum(outputs**2) + last.h.sum() + last.c.sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(params, x, carry)
    calls = {e.primitive.name: e for e in jaxpr.eqns if e.primitive.name.startswith("rnn_")}
    stated = [e for e in jaxpr.eqns if e.primitive.name == "layout_constraint"]
    assert all(e.params["layout"].major_to_minor == (0, 1, 2) for e in stated)
    before = {id(e.outvars[0]) for e in stated} | {id(calls["rnn_fwd"].outvars[0])}
    after = {id(e.invars[0]) for e in stated}
    for call in calls.values():
        assert all(id(v) in before for v in call.invars if len(v.aval.shape) > 1)
        assert all(id(v) in after for v in call.outvars if len(v.aval.shape) > 1)


def test_rejects_vmap(traced_alone):
    params, x, carry = jax.tree.map(jnp.float32, draw())
    many = jax.tree.map(lambda p: jnp.stack([p, p]), params)
    with pytest.raises(ValueError, match="no rule for vmap: put the mapped axis into the batch"):
        jax.vmap(lambda p: lstm_sequence(LSTMParams(*p), x, carry, backend="cudnn"))(many)


def test_lowers_for_cuda():
    if cudnn.missing():
        pytest.skip(f"JAX lowers cuDNN's LSTM only with its CUDA plugin: {cudnn.missing()}")
    params, x, carry = jax.tree.map(jnp.float32, draw())
    run = jax.jit(lambda x: lstm_sequence(params, x, carry, backend="cudnn"))
    text = run.trace(x).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("cudnn_rnn") == 1
