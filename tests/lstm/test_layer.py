"""The NNX layer: stack, options and initialisation."""

import chex
import cudnn_stand_in
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from flax import nnx
from plain import plain_for

from lstm_optax import LSTM, LSTMState, gate_slice
from lstm_optax.gates import GATES

T, B, F, H = 5, 3, 2, 4


def make(**options) -> LSTM:
    return LSTM(F, H, **options, rngs=nnx.Rngs(0))


def inputs(seed=0, time=T):
    return np.random.default_rng(seed).normal(size=(time, B, F)).astype(np.float32)


def wide_carry():
    return LSTM(F, H + 1, rngs=nnx.Rngs(0)).initial_carry(B)


def as_oracle(lstm: LSTM):
    return [{d: tuple(layer[d].params()) for d in lstm.directions} for layer in lstm.layers]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_stack_equals_oracle(bidirectional, ragged):
    lstm = make(num_layers=2, bidirectional=bidirectional)
    rng = np.random.default_rng(1)
    options = {}
    if ragged:
        options = dict(seq_lengths=np.array([5, 2, 0]), resets=rng.random((T, B)) < 0.4)
    carry = jax.tree.map(lambda s: rng.normal(size=s.shape), lstm.initial_carry(B))
    outputs, last = lstm(inputs(), carry, **options)
    width = len(lstm.directions)
    states = [
        {d: tuple(carry[layer * width + i]) for i, d in enumerate(lstm.directions)}
        for layer in range(2)
    ]
    expected, expected_states = oracle.stacked(
        as_oracle(lstm), inputs(), states, bidirectional=bidirectional, **options
    )
    chex.assert_trees_all_close(outputs, expected, rtol=1e-4, atol=1e-5)
    flat = tuple(LSTMState(*layer[d]) for layer in expected_states for d in lstm.directions)
    chex.assert_trees_all_close(last, flat, rtol=1e-4, atol=1e-5)


def test_initialisation_per_gate():
    """Each recurrent block is orthogonal, the input kernel LeCun-normal, the forget bias 1."""
    lstm = LSTM(200, 64, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    for layer, features in zip(lstm.layers, (200, 128), strict=True):
        for direction in lstm.directions:
            params = layer[direction].params()
            for gate in GATES:
                block = params.kernel_hh[:, gate_slice(gate, 64)]
                np.testing.assert_allclose(block @ block.T, np.eye(64), atol=1e-5)
                bias = params.bias[gate_slice(gate, 64)]
                np.testing.assert_array_equal(bias, 1.0 if gate == "forget" else 0.0)
                columns = params.kernel_ih[:, gate_slice(gate, 64)]
                assert np.std(columns) == pytest.approx(features**-0.5, rel=0.05)
    blocks = [lstm.layers[0]["forward"].params().kernel_hh[:, gate_slice(g, 64)] for g in GATES]
    assert not np.allclose(blocks[0], blocks[1])
    bias = make(forget_bias=3.0).layers[0]["forward"].params().bias
    np.testing.assert_array_equal(bias[gate_slice("forget", H)], 3.0)


@pytest.mark.parametrize("time_major", [True, False])
def test_single_steps_equal_sequence(time_major):
    lstm = make(num_layers=2, time_major=time_major)
    x = inputs()
    whole, last = lstm(x if time_major else np.swapaxes(x, 0, 1))
    carry, outputs = None, []
    for t in range(T):
        out, carry = lstm.step(x[t], carry)
        outputs.append(out)
    chex.assert_trees_all_close(np.stack(outputs, 0 if time_major else 1), whole, rtol=1e-5)
    chex.assert_trees_all_close(carry, last, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "fused", "reference", "cudnn"])
@pytest.mark.parametrize("time_major", plain_for([True, False], [True]))
def test_steps_with_resets_equal_sequence(backend, time_major, monkeypatch):
    """cuDNN as well, which takes no resets in a sequence."""
    cudnn_stand_in.install(monkeypatch)
    options = dict(num_layers=2, time_major=time_major)
    lstm, x = make(**options, backend=backend), inputs()
    done = np.random.default_rng(3).random((T, B)) < 0.4
    carry = jax.tree.map(lambda s: s + 0.5, lstm.initial_carry(B))
    turned = (lambda a: a) if time_major else (lambda a: np.swapaxes(a, 0, 1))
    whole, last = make(**options)(turned(x), carry, resets=turned(done))
    outputs = []
    for t in range(T):
        resets = done[t] if t % 2 else done[t].astype(np.float32)  # numbers are accepted as bools
        out, carry = lstm.step(x[t], carry, resets=resets)
        outputs.append(out)
    chex.assert_trees_all_close(turned(np.stack(outputs)), whole, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(carry, last, rtol=1e-5, atol=1e-6)


def test_reset_step_stops_carry_gradient():
    lstm, done = make(num_layers=2), np.array([True, False, True])
    carry = jax.tree.map(
        lambda s: s + jnp.array([jnp.nan, 1, jnp.inf])[:, None], make(num_layers=2).initial_carry(B)
    )
    loss = lambda carry: jnp.sum(lstm.step(inputs()[0], carry, resets=done)[0] ** 2)  # noqa: E731
    for leaf in jax.tree.leaves(jax.grad(loss)(carry)):
        assert not leaf[done].any() and leaf[~done].any()


def test_batch_major_equals_transposed_time_major():
    first, last = make(time_major=True), make(time_major=False)
    x, resets = inputs(), np.random.default_rng(2).random((T, B)) < 0.3
    a, carry_a = first(x, resets=resets)
    b, carry_b = last(np.swapaxes(x, 0, 1), resets=resets.T)
    chex.assert_trees_all_close((a, carry_a), (np.swapaxes(b, 0, 1), carry_b))


def test_dropout_acts_only_between_layers():
    two = LSTM(F, H, num_layers=2, dropout=0.5, rngs=nnx.Rngs(params=0))
    rngs = lambda: nnx.Rngs(dropout=3)  # noqa: E731
    plain, dropped = two(inputs(), deterministic=True)[0], two(inputs(), rngs=rngs())[0]
    assert not np.allclose(plain, dropped)
    chex.assert_trees_all_close(two(inputs(), rngs=rngs())[0], dropped)
    chex.assert_trees_all_close(two(inputs(), rngs=rngs(), deterministic=True)[0], plain)
    chex.assert_trees_all_close(
        two(inputs(), rngs=rngs())[1][0], two(inputs(), deterministic=True)[1][0]
    )
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        two(inputs())
    two.eval()
    chex.assert_trees_all_close(two(inputs())[0], plain)


def test_works_under_nnx_jit_and_grad():
    lstm = make(num_layers=2)

    @nnx.jit
    def loss_and_grad(lstm, x):
        return nnx.value_and_grad(lambda m: jnp.sum(jnp.square(m(x)[0])))(lstm)

    loss, grads = loss_and_grad(lstm, inputs())
    assert loss == pytest.approx(float(jnp.sum(jnp.square(lstm(inputs())[0]))), rel=1e-5)
    pure = nnx.to_pure_dict(grads)
    assert set(pure["layers"][1]["forward"]) == {"kernel_ih", "kernel_hh", "bias"}
    assert all(np.any(leaf) for leaf in jax.tree.leaves(pure))


def test_dtypes():
    lstm = make(dtype=jnp.bfloat16)
    outputs, carry = lstm(inputs())
    assert outputs.dtype == jnp.bfloat16 and carry[0].c.dtype == jnp.float32
    params = jax.tree.leaves(nnx.state(make(param_dtype=jnp.bfloat16), nnx.Param))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: LSTM(0, 4, rngs=nnx.Rngs(0)),
            "in_features is 0, but must be a whole number of at least 1",
        ),
        (lambda: LSTM(2, -1, rngs=nnx.Rngs(0)), "hidden_features is -1"),
        (lambda: make(num_layers=0), "num_layers is 0"),
        (lambda: make(dropout=1.0), r"dropout is 1.0, but must be a number in \[0, 1\)"),
        (lambda: make(backend="fast"), "unknown LSTM backend 'fast'"),
        (
            lambda: make(dropout=0.5),
            "dropout is 0.5, but it acts between layers and num_layers is 1",
        ),
        (lambda: make(num_layers=2, locked_dropout=True), "needs a dropout above 0"),
        (lambda: make(bidirectional=True).step(np.ones((B, F))), "needs the whole sequence"),
        (
            lambda: make()(np.ones((B, F))),
            r"x has shape \(3, 2\); expected three axes: time, batch",
        ),
        (
            lambda: make(time_major=False)(np.ones((B, F))),
            "expected three axes: batch, time, features",
        ),
        (
            lambda: make()(np.ones((T, B, 7))),
            r"x has 7 features, but the layer takes 2: x, of shape \(5, 3, 7\), is read as "
            r"\[time, batch, features\]",
        ),
        (
            lambda: make(time_major=False)(np.ones((B, T, 7))),
            r"x, of shape \(3, 5, 7\), is read as \[batch, time, features\]",
        ),
        (
            lambda: make().step(np.ones((B, 1))),
            r"x has 1 features, .* takes 2: x, of shape \(3, 1\), is read as \[batch, features\]",
        ),
        (lambda: make().step(inputs()), r"x has shape \(5, 3, 2\); expected two axes: batch, feat"),
        (lambda: make().step(np.ones(F)), r"x has shape \(2,\); expected two axes"),
        (
            lambda: make().step(np.ones((B, F)), resets=np.ones((B, 1), bool)),
            r"resets has shape \(3, 1\); expected \(3,\): laid out as x; x, of shape \(3, 2\)",
        ),
        (
            lambda: make().step(np.ones((B, F)), make().initial_carry(B + 1)),
            r"carry\[0\].h has shape \(4, 4\); expected \(3, 4\): batch by hidden; x, of shape ",
        ),
        (
            lambda: make(time_major=False)(inputs(), make().initial_carry(B)),
            r"carry\[0\].h has shape \(3, 4\); expected \(5, 4\): batch by hidden; x, of shape "
            r"\(5, 3, 2\), is read as \[batch, time, features\]",
        ),
        (
            lambda: make(num_layers=2)(inputs(), (*make().initial_carry(B), *wide_carry())),
            r"carry\[1\].h has shape \(3, 5\); expected \(3, 4\)",
        ),
        (
            lambda: make(time_major=False)(inputs(), seq_lengths=np.ones(B, int)),
            r"seq_lengths has shape \(3,\); expected \(5,\): batch; x, .* \[batch, time, feat",
        ),
        (
            lambda: make(time_major=False)(inputs(), detach=np.ones((B, T), bool)),
            r"detach has shape \(3, 5\); expected \(5, 3\): laid out as x, or \(3,\) for all rows",
        ),
        (lambda: make()(inputs(), (jnp.ones((B, H)),) * 2), "expected a tuple of 1 LSTMState"),
        (lambda: make()(inputs(), make().initial_carry(B)[0]), "expected a tuple of 1 LSTMState"),
        (lambda: make(num_layers=2)(inputs(), make().initial_carry(B)), "a tuple of 2 LSTMState"),
        (
            lambda: LSTM.from_params(make().params(), forget_bias=3.0),
            "forget_bias is 3.0, but the parameters determine it",
        ),
        (lambda: LSTM.from_params(make().params(), param_dtype=jnp.bfloat16), "param_dtype is"),
        (lambda: gate_slice("memory", 4), "unknown gate 'memory'"),
    ],
)
def test_rejects_invalid_argument(build, message):
    with pytest.raises(ValueError, match=message):
        build()
