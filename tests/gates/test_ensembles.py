"""Ensembles: one more axis in front of every array, and each member a separate LSTM."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from layouts_table import LAYOUTS, H, N, as_lstm_params

import lstm_optax as lo

E = 3
NAMES = [name for name in LAYOUTS if name != "cuDNN"]
every_layout = pytest.mark.parametrize("name", NAMES)


def ensemble(name):
    """Return the members of an ensemble, and their arrays stacked."""
    members = [LAYOUTS[name].params(seed) for seed in range(E)]
    return members, jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


@every_layout
def test_finds_every_member(name):
    """Each member has its own parameters, and every entry belongs to one block."""
    members, stack = ensemble(name)
    options = LAYOUTS[name].arguments
    found = lo.find_gates(stack, **options)
    cells = as_lstm_params(stack, found)
    for i, member in enumerate(members):
        for (lstm, *place), params in as_lstm_params(
            member, lo.find_gates(member, **options)
        ).items():
            chex.assert_trees_all_equal(cells.pop((f"{lstm}[{i}]", *place)), params)
    assert not cells
    counts = jax.tree.map(lambda x: np.zeros(x.shape, int), stack)
    of_path = dict(jax.tree_util.tree_flatten_with_path(counts)[0])
    for block in found.blocks:
        of_path[block.path][block.index] += 1
    assert all(np.all(count == 1) for count in of_path.values())
    same = found.map(lambda block, x: x, stack)
    chex.assert_trees_all_equal(same, stack)
    assert lo.find_gates(jax.eval_shape(lambda: stack), **options) == found


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_by_gate_updates_members_separately(name, keyed):
    """Norms and moments are those of one member, also if keys separate the gates of one array."""
    members, stack = ensemble(name)
    stack = jax.tree.map(
        lambda x: x * jnp.arange(1.0, E + 1).reshape(E, *[1] * (x.ndim - 1)), stack
    )
    members = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(E)]
    clip = lo.clip_by_global_norm(0.5)
    rule = (
        {"forget": clip, ("bias", "cell"): lo.nadam(0.1)}
        if keyed
        else optax.chain(clip, lo.adam(0.1))
    )
    gates = lambda params: lo.find_gates(params, **LAYOUTS[name].arguments)  # noqa: E731
    tx = lo.by_gate(rule, others=optax.identity() if keyed else None, gates=gates)

    def run(params):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
        return updates

    together = run(stack)
    for i, member in enumerate(members):
        own = jax.tree.map(lambda x, i=i: x[i], together)
        chex.assert_trees_all_close(own, run(member), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_vmapped_layer_is_an_ensemble():
    """Two bidirectional layers under `nnx.vmap`."""

    @nnx.vmap
    def make(key):
        return lo.LSTM(N, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(key))

    params = nnx.state(make(jax.random.split(jax.random.key(0), E)), nnx.Param)
    found = lo.find_gates(params)
    assert {block.lstm for block in found.blocks} == {f"[{i}]" for i in range(E)}
    assert len(found.blocks) == E * 4 * 3 * 4
    opened = lo.init_forget_bias(params, 2.0)
    bias = opened["layers"][1]["backward"]["bias"][...]
    np.testing.assert_array_equal(bias[:, lo.gate_slice("forget", H)], np.full((E, H), 2.0))
    turned = lo.init_orthogonal(params, jax.random.key(1))["layers"][0]["forward"]["kernel_hh"][...]
    block = turned[:, :, lo.gate_slice("cell", H)]
    np.testing.assert_allclose(
        jnp.einsum("eij,ekj->eik", block, block), np.stack([np.eye(H)] * E), atol=1e-5
    )
    assert np.any(np.abs(block[0] - block[1]) > 0.1)


def test_rejects_stacks_of_other_cells():
    shapes = {"weight_ih_l0": (E, 3 * H, N), "weight_hh_l0": (E, 3 * H, H)}
    gru = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match="there is no LSTM"):
        lo.find_gates(gru)
    half = {"weight_ih": jnp.zeros((4 * H, N)), "weight_hh": jnp.zeros((E, 4 * H, H))}
    with pytest.raises(ValueError, match=r"'weight_hh' .* shape \(3, 20, 5\)"):
        lo.find_gates(half)
