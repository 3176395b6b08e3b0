"""A transformation for each gate: equal to splitting by hand, whatever the layout."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import rows
from compiled import optimized
from gate_cases import blocks_of, first, split
from layouts_table import LAYOUTS
from rows import H, N
from rows import lstm_gradients_of as gradients_of
from rows import lstm_params_of as params_of

import lstm_optax as lo
from lstm_optax import by_gate, find_gates, gate_slice

pytestmark = pytest.mark.slow  # compiles much

STEPS = 4
trajectory = jax.jit(rows.trajectory, static_argnums=0)


TRANSFORMATIONS = {
    "adam": lo.adam(0.1),
    "nadamw": lo.nadamw(0.1, weight_decay=0.3),
    "clip": lo.clip_by_global_norm(1.0),
    "quantile": lo.clip_by_norm_quantile(0.5, window=H),  # a ring as long as a bias
    "optax.clip": optax.clip_by_global_norm(1.0),
    "muon": optax.contrib.muon(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "schedule_free": optax.contrib.schedule_free_adamw(0.1),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_equals_splitting_by_hand(name):
    tx, params, gradients = TRANSFORMATIONS[name], params_of(), gradients_of(STEPS)
    updates, _ = trajectory(by_gate(tx, others=optax.identity()), params, gradients)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    ours, by_hand = split(updates)["lstm"], split(gradients)["lstm"]
    for kind, gates in split(params)["lstm"].items():
        for gate, p in gates.items():
            alone = trajectory(tx, p, by_hand[kind][gate])[0]
            np.testing.assert_allclose(ours[kind][gate], alone, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal(updates["head"], gradients["head"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_blocks_move_alike_in_every_layout(name):
    """Each block moves as it would alone, wherever it is stored."""
    layout = LAYOUTS[name]
    params, find = layout.params(), partial(find_gates, **layout.arguments)
    gradient = layout.params(seed=1)
    updates, _ = first(by_gate(lo.clip_by_global_norm(1.0), gates=find), gradient, params)
    for _, update, g in blocks_of(find(params), updates, gradient):
        np.testing.assert_allclose(update, g * min(1, 1 / np.linalg.norm(g)), rtol=1e-5)


def test_keys_of_packed_leaves():
    """Different rules for the gates of packed leaves: Haiku's order, cuDNN's vector."""
    for name in ("Haiku", "cuDNN", "PyTorch, LSTM", "Flax Linen"):
        layout = LAYOUTS[name]
        params, find = layout.params(), partial(find_gates, **layout.arguments)
        rules = {("kernel_ih", "cell"): optax.scale(2.0), "forget": optax.scale(3.0)}
        tx = by_gate(rules, others=optax.scale(5.0), gates=find)
        updates, _ = first(tx, params, params)
        for block, update, p in blocks_of(find(params), updates, params):
            factor = 3.0 if block.gate == "forget" else 5.0
            factor = 2.0 if (block.kind, block.gate) == ("kernel_ih", "cell") else factor
            np.testing.assert_allclose(update, factor * p, rtol=1e-6)


def test_moments_are_reshaped_parameters():
    params = params_of()
    state = by_gate(lo.adam(0.1)).init(params)
    moments = lo.find_states(state.blocks, lo.transforms.EmaState)
    assert [m.mu.shape for m in moments] == [(N, 4, H), (H, 4, H), (4, H)]
    assert lo.find_states(state.others, lo.transforms.EmaState)[0].mu["head"]["kernel"].shape == (
        H,
        2,
    )


@pytest.mark.parametrize("rows", [False, True])
def test_fused_kernel_is_not_copied(rows):
    """A donated step of Adam, gate by gate, needs no memory of the size of a kernel."""
    hidden = 64
    shapes = dict(kernel_ih=(8, 4 * hidden), kernel_hh=(hidden, 4 * hidden), bias=(4 * hidden,))
    if rows:
        shapes = dict(weight_ih=(4 * hidden, 8), weight_hh=(4 * hidden, hidden))
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    tx = by_gate(lo.adam(0.1))
    state = jax.eval_shape(tx.init, params)

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    program = optimized(jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params))
    assert program.memory_analysis().temp_size_in_bytes < 4 * 8 * hidden


def test_gate_muon_equals_muon_on_split_kernels():
    params, gradients = params_of(), gradients_of(STEPS)
    updates = split(trajectory(lo.gate_muon(0.1), params, gradients)[0])
    theirs = optax.contrib.muon(0.1, consistent_rms=0.2)
    by_hand = split(gradients)["lstm"]
    for kind in ("kernel_ih", "kernel_hh"):
        p = split(params)["lstm"][kind]
        expected = trajectory(theirs, p, by_hand[kind])[0]
        chex.assert_trees_all_close(updates["lstm"][kind], expected, rtol=2e-4, atol=1e-5)
    left = {"bias": params["lstm"].bias, "head": params["head"]}
    g = {"bias": gradients["lstm"].bias, "head": gradients["head"]}
    expected = split({"lstm": params["lstm"], "head": trajectory(lo.nadam(0.1), left, g)[0]})[
        "head"
    ]
    chex.assert_trees_all_close(updates["head"], expected["head"], rtol=1e-5)


def test_gate_muon_isolates_a_loud_gate():
    """A gate with a gradient of a thousand times the size leaves the others' steps as they are."""
    params, gradient = params_of(), jax.tree.map(lambda g: g[0], gradients_of(3))
    loud = gradient["lstm"].kernel_hh.at[:, gate_slice("cell", H)].multiply(1000.0)
    loud = gradient | {"lstm": gradient["lstm"]._replace(kernel_hh=loud)}

    def forget_step(tx, g):
        return first(tx, g, params)[0]["lstm"].kernel_hh[:, gate_slice("forget", H)]

    ours, whole = lo.gate_muon(0.1), optax.contrib.muon(0.1, consistent_rms=0.2)
    np.testing.assert_allclose(forget_step(ours, loud), forget_step(ours, gradient), rtol=1e-4)
    quiet, drowned = (np.linalg.norm(forget_step(whole, g)) for g in (gradient, loud))
    assert drowned < 0.5 * quiet


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PyTorch, LSTM", "Flax Linen", "Haiku", "Equinox"])
def test_gate_muon_is_equal_in_every_layout(name):
    """Transposed kernels get the same steps: the scale does not know rows from columns."""
    layout = LAYOUTS[name]
    params = layout.params()
    tx, muon = lo.gate_muon(0.1), optax.contrib.muon(0.1, consistent_rms=0.2)
    updates, _ = first(tx, params, params)
    for block, u, p in blocks_of(find_gates(params), updates, params):
        if block.kind != "bias":
            expected = first(muon, jnp.asarray(p), jnp.asarray(p))[0]
            np.testing.assert_allclose(u, expected, rtol=1e-3, atol=1e-5)


def test_clipping_per_gate():
    """Each block gets the norm 1, and the clips are counted for each."""
    params, gradient = params_of(), jax.tree.map(lambda g: 100 * g[0], gradients_of(3))
    tx = by_gate(lo.clip_by_global_norm(1.0), others=optax.identity())
    updates, state = first(tx, gradient, params)
    for gates in split(updates)["lstm"].values():
        for block in gates.values():
            np.testing.assert_allclose(np.linalg.norm(block), 1.0, rtol=1e-6)
    clips = lo.find_states(state, lo.transforms.ClipByGlobalNormState)
    assert [c.clipped.tolist() for c in clips] == [[1, 1, 1, 1]] * 3


def test_weight_decay_of_kernels_only():
    params = params_of()
    decay = optax.add_decayed_weights(0.1)
    tx = by_gate({"kernel_ih": decay, "kernel_hh": decay}, others=optax.identity())
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = first(tx, zeros, params)
    expected = zeros | {
        "lstm": jax.tree.map(lambda p: 0.1 * p, params["lstm"])._replace(bias=zeros["lstm"].bias)
    }
    chex.assert_trees_all_close(updates, expected)
