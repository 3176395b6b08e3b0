"""Gradient records and h-detach equal the oracle, and add no code if not used."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cudnn_stand_in import CPU_BACKENDS
from flax import nnx

from lstm_optax import (
    LSTM,
    CotangentClip,
    GradientFlow,
    LanguageModel,
    LSTMParams,
    LSTMState,
    lstm_sequence,
    probe,
    token_losses,
)
from lstm_optax.gates import GATES

pytestmark = pytest.mark.slow  # compile many programs

T, B, F, H = 6, 3, 2, 4


def draw(seed=0):
    rng = np.random.default_rng(seed)
    params = LSTMParams(
        rng.normal(size=(F, 4 * H)), 2 * rng.normal(size=(H, 4 * H)), rng.normal(size=4 * H)
    )
    carry = LSTMState(rng.normal(size=(B, H)), rng.normal(size=(B, H)))
    return params, rng.normal(size=(T, B, F)), carry, rng.normal(size=(T, B, H))


def options_of(mixed):
    if not mixed:
        return {}
    resets = np.zeros((T, B), bool)
    resets[2, 1] = True
    return dict(seq_lengths=np.array([6, 4, 6]), resets=resets, reverse=True)


def blocks(g):
    return g.reshape(B, 4, H)


def seen_by_the_oracle(params, x, carry, pull, clip=None, **options):
    """Return the oracle's norms of the gradient at each step, before the clip of that step."""
    flow = GradientFlow(*(np.zeros(s) for s in ((T, B), (T, B), *[(T, B, 4)] * 3)))

    def cut(t, name, g):
        norms = np.linalg.norm(blocks(g) if name == "gates" else g, axis=-1)
        getattr(flow, name)[t] = norms
        return g if clip is None else np.clip(g, -clip, clip)

    oracle.gradients(*params, x, *carry, pull, *np.zeros((2, B, H)), cut=cut, **options)
    return flow


@pytest.mark.parametrize(
    "backend, mixed, clip",
    [*((b, m, 0.2) for b in CPU_BACKENDS for m in (False, True)), ("fused", True, None)],
)
def test_norms_equal_oracle(backend, mixed, clip, x64):
    params, x, carry, pull = draw()
    clips = None if clip is None else CotangentClip(clip, clip, clip)
    options = dict(backend=backend, **options_of(mixed))

    def loss(params, flow):
        outputs = lstm_sequence(params, x, carry, cotangent_clip=clips, probe=flow, **options)[0]
        return jnp.sum(pull * outputs)

    zeros = GradientFlow.zeros(T, B)
    grads, flow = jax.grad(loss, argnums=(0, 1))(params, zeros)
    expected = seen_by_the_oracle(params, x, carry, pull, clip, **options_of(mixed))
    chex.assert_trees_all_close(flow[:3], expected[:3], rtol=1e-10)
    chex.assert_trees_all_close(grads, jax.grad(loss)(params, None), rtol=1e-12)
    np.testing.assert_allclose(loss(params, zeros), loss(params, None), rtol=1e-13)


def test_saturation_is_share_of_units(x64):
    """With zero kernels the pre-activations are the biases, chosen around the limits."""
    at = {"input": [-2.95, -2.94, 0, 2.95], "forget": [-2.95] * 4, "output": [2.95, 2.94, 0, 0]}
    at["cell"] = [-1.48, -1.47, 1.47, 1.48]  # tanh(1.4722) = .9, σ(2.9444) = .95
    params = LSTMParams(
        jnp.zeros((F, 4 * H)),
        jnp.zeros((H, 4 * H)),
        jnp.concatenate([jnp.array(at[g]) for g in GATES]),
    )
    loss = lambda f: jnp.sum(lstm_sequence(params, jnp.zeros((T, B, F)), probe=f[0])[0])  # noqa: E731
    (flow,) = probe(loss, T, B)
    ones = np.ones((T, B, 1))
    np.testing.assert_allclose(flow.low, ones * np.array([0.25, 1, 0.25, 0])[None, None])
    np.testing.assert_allclose(flow.high, ones * np.array([0.25, 0, 0.25, 0.25])[None, None])


def test_over_batch():
    rng = np.random.default_rng(0)
    flow = GradientFlow(*(rng.random(size=s) for s in ((T, B), (T, B), *[(T, B, 4)] * 3)))
    whole = flow.over_batch()
    np.testing.assert_allclose(whole.h, np.linalg.norm(flow.h, axis=1), rtol=1e-6)
    np.testing.assert_allclose(whole.gates, np.linalg.norm(flow.gates, axis=1), rtol=1e-6)
    np.testing.assert_allclose(whole.high, flow.high.mean(1), rtol=1e-6)
    huge = GradientFlow(*(np.float32(1e30) * x for x in flow)).over_batch()
    np.testing.assert_allclose(huge.c, np.float32(1e30) * whole.c, rtol=1e-5)


@pytest.mark.parametrize("time_major", [True, False])
def test_stack_has_flow_per_layer_direction(time_major):
    lstm = LSTM(F, H, num_layers=2, bidirectional=True, time_major=time_major, rngs=nnx.Rngs(0))
    x = jnp.float32(draw()[1])
    x = x if time_major else jnp.swapaxes(x, 0, 1)

    def loss(flows):
        outputs, _ = lstm(x, probe=flows)
        last = outputs[3] if time_major else outputs[:, 3]
        return jnp.sum(last)

    flows = probe(loss, T, B, layers=4)
    assert len(flows) == 4 and all(np.all(np.isfinite(f.gates)) for f in flows)
    top_forward, top_backward = flows[2].h, flows[3].h
    assert np.all(top_forward[:4] > 0) and np.all(top_forward[4:] == 0)
    assert np.all(top_backward[:3] == 0) and np.all(top_backward[3:] > 0)
    assert np.all(flows[0].h > 0) and np.all(flows[1].c > 0)
    chex.assert_trees_all_close(lstm(x), lstm(x, probe=flows), rtol=1e-5, atol=1e-6)


def test_exploding_gradient_is_recorded_per_step():
    """Before the signal, the gradient grows by the same factor at each step."""
    kernel_hh = jnp.tile(4 * jnp.eye(H), 4)
    params = LSTMParams(jnp.ones((F, 4 * H)), kernel_hh, jnp.zeros(4 * H))
    x = jnp.zeros((60, 1, F)).at[-1].set(0.1)
    (flow,) = probe(lambda f: jnp.sum(lstm_sequence(params, x, probe=f[0])[0][-1]), 60, 1)
    growth = flow.h[:-2, 0] / flow.h[1:-1, 0]
    np.testing.assert_allclose(growth[5:40], 1.5, rtol=1e-3)  # ½ through c, ¼ · 4 through g
    assert np.all(flow.gates[:30, 0, 2] > 0) and np.all(flow.gates[:30, 0, [0, 1, 3]] == 0)


def test_language_model_takes_flows():
    rngs = nnx.Rngs(0)
    model = LanguageModel(5, LSTM(F, H, num_layers=2, rngs=rngs), rngs=rngs)
    tokens = jnp.ones((T, B), int)
    flows = probe(
        lambda f: token_losses(model(tokens, probe=f, deterministic=True)[0], tokens)[0],
        T,
        B,
        layers=2,
    )
    assert len(flows) == 2 and all(np.all(f.h > 0) for f in flows)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("mixed", [False, True])
def test_h_detach_cuts_only_h_path(backend, mixed, x64):
    """Detaching every step equals a derivative with h stopped by hand; the path of c stays."""
    params, x, carry, pull = draw()
    options = options_of(mixed)

    def loss(params, detach):
        outputs = lstm_sequence(params, x, carry, detach=detach, backend=backend, **options)[0]
        return jnp.sum(pull * outputs)

    states = recurrent_h(params, x, carry, options)

    def by_hand(params):
        """The same sum with the recurrent h as a constant."""
        wide = LSTMParams(
            jnp.concatenate([params.kernel_ih, params.kernel_hh]), 0 * params.kernel_hh, params.bias
        )
        both = jnp.concatenate([x, states], -1)
        return jnp.sum(pull * lstm_sequence(wide, both, carry, **options)[0])

    every = jnp.ones(T, bool)
    found, expected = jax.grad(loss)(params, every), jax.grad(by_hand)(params)
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-12)
    free = jax.grad(loss)(params, None)
    assert not np.allclose(found.kernel_hh, free.kernel_hh, rtol=1e-2)
    chex.assert_trees_all_close(jax.grad(loss)(params, ~every), free, rtol=1e-12)
    assert loss(params, every) == loss(params, None)


def recurrent_h(params, x, carry, options):
    """Return the h that each step reads, from the oracle's tape."""
    lengths, resets = options.get("seq_lengths"), options.get("resets")
    *_, tape = oracle._run(*params, x, *carry, lengths, resets, options.get("reverse", False))
    states = np.zeros((T, B, H))
    for step in tape:
        states[step.t] = step.h_start
    return states


def test_h_detach_of_some_steps_and_rows():
    """A cut at step 4 leaves the path through c, the later steps and the other rows."""
    params, x, carry, _ = jax.tree.map(jnp.float32, draw())
    mask = jnp.zeros((T, B), bool).at[4, 1].set(True)

    def by_inputs(detach):
        loss = lambda x: jnp.sum(lstm_sequence(params, x, carry, detach=detach)[0][-1])  # noqa: E731
        return jax.grad(loss)(x)

    cut, free = by_inputs(mask), by_inputs(None)
    np.testing.assert_array_equal(cut[4:], free[4:])
    np.testing.assert_array_equal(cut[:, [0, 2]], free[:, [0, 2]])
    assert np.all(cut[:4, 1] != free[:4, 1]) and np.all(cut[:4, 1] != 0)
    rows = by_inputs(jnp.zeros(T).at[4].set(1))
    np.testing.assert_allclose(rows[:, 1], cut[:, 1], rtol=1e-6)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_h_detach_in_padding_has_no_effect(backend):
    """In the padding h is carried, not multiplied, so the gradient of the last state passes."""
    params, x, carry, _ = jax.tree.map(jnp.float32, draw())
    ended = (jnp.arange(T) >= 2)[:, None] & jnp.ones((1, B), bool)

    def by_inputs(detach):
        options = dict(seq_lengths=jnp.full(B, 2), detach=detach, backend=backend)
        return jax.grad(lambda x: jnp.sum(lstm_sequence(params, x, carry, **options)[1].h))(x)

    found = by_inputs(ended)
    assert np.all(found[:2] != 0)
    np.testing.assert_allclose(found, by_inputs(None), rtol=1e-6)


def test_layer_detaches_in_every_direction():
    x, mask = jnp.float32(draw()[1]), jnp.ones((T, B), bool)
    first = LSTM(F, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    second = LSTM.from_params(first.params(), bidirectional=True, time_major=False)
    grads, mask = [], mask.at[0].set(False)
    for lstm, turn in ((first, False), (second, True)):
        args = (jnp.swapaxes(x, 0, 1), mask.T) if turn else (x, mask)
        loss = lambda m, x, d: jnp.sum(m(x, detach=d)[0])  # noqa: E731
        grads.append(nnx.to_pure_dict(nnx.grad(loss)(lstm, *args)))
    chex.assert_trees_all_close(*grads, rtol=1e-4, atol=1e-6)
    free = nnx.to_pure_dict(nnx.grad(lambda m: jnp.sum(m(x)[0]))(first))
    for layer in (0, 1):
        for direction in first.directions:
            cut, whole = (g["layers"][layer][direction]["kernel_hh"] for g in (grads[0], free))
            assert not np.allclose(cut, whole, rtol=1e-2)


BAD = [
    (dict(detach=np.ones(T - 1, bool)), r"detach has shape \(5,\); expected \(6,\) or \(6, 3\)"),
    (dict(detach=np.ones((B, T), bool)), r"detach has shape \(3, 6\); expected"),
    (dict(probe=GradientFlow.zeros(T, B + 1)), r"probe.h has shape \(6, 4\); expected \(6, 3\)"),
    (dict(probe=np.zeros((T, B))), "probe is a ndarray; expected a GradientFlow"),
]


@pytest.mark.parametrize("options, message", BAD)
def test_rejects_invalid_detach_or_probe(options, message):
    with pytest.raises(ValueError, match=message):
        lstm_sequence(*draw()[:2], **options)


def test_stack_rejects_wrong_flows():
    lstm, x = LSTM(F, H, num_layers=2, rngs=nnx.Rngs(0)), jnp.float32(draw()[1])
    one = GradientFlow.zeros(T, B)
    for bad in (one, (one,)):
        with pytest.raises(ValueError, match="expected a tuple of 2 GradientFlow"):
            lstm(x, probe=bad)
    with pytest.raises(ValueError, match="time is 0, but must be a whole number of at least 1"):
        probe(lambda flows: 0.0, 0, 1)
