"""Optimizers continued from recordings of PyTorch, and rejected state dicts, without PyTorch."""

from collections import OrderedDict

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain import plain_for
from record_torch_state import RECORDED, load_move
from torch_training import RECORDED_MOVES, batches, distance, go_on, loss

from lstm_optax.interop.torch_optimizer import optimizer_from_torch
from lstm_optax.presets import torch
from lstm_optax.transforms import (
    CenteredMeanSquareState,
    DebiasState,
    DozatMomentumState,
    EmaState,
    MomentumState,
    RunningMaxState,
)

OPTIONS = {
    "SGD": dict(momentum=0.9, dampening=0, nesterov=False),
    "RMSprop": dict(alpha=0.9, eps=1e-8, momentum=0, centered=False),
    "Adam": dict(betas=(0.9, 0.99), eps=1e-8, amsgrad=False),
    "NAdam": dict(betas=(0.9, 0.99), eps=1e-8, momentum_decay=4e-3),
}
OPTIONS["AdamW"] = OPTIONS["Adam"] | dict(decoupled_weight_decay=True)
MOMENTS = {
    "SGD": ["momentum_buffer"],
    "RMSprop": ["square_avg"],
    "Adam": ["exp_avg", "exp_avg_sq"],
    "NAdam": ["exp_avg", "exp_avg_sq"],
}
MOMENTS["AdamW"] = MOMENTS["Adam"]
STEP = dict.fromkeys(OPTIONS) | {"SGD": 7}  # its state has no step count
PARAMS = {"w": np.ones((3, 2), np.float32), "b": np.ones(3, np.float32)}


def saved(name: str, step: int = 7, dtype=np.float32, **options) -> dict:
    """Return a state dict of an optimizer for PARAMS in PyTorch's layout, with moments 1, 2, …"""
    state = {}
    for index, p in enumerate(PARAMS.values()):
        keys = MOMENTS[name]
        entry = {key: np.full(p.shape, i + 1, dtype) for i, key in enumerate(keys)}
        if name != "SGD":
            entry["step"] = np.float32(step)
        if name == "NAdam":
            entry["mu_product"] = np.float32(0.25)
        state[index] = entry
    group = dict(lr=0.1, weight_decay=0.0, maximize=False, foreach=None, params=[0, 1])
    return {"state": state, "param_groups": [group | OPTIONS[name] | options]}


def convert(name: str = "Adam", state_dict: dict | None = None, params=PARAMS, **arguments):
    return optimizer_from_torch(
        getattr(torch, name), state_dict or saved(name), params, **arguments
    )


def test_recording_has_these_batches():
    with np.load(RECORDED) as file:
        for name, value in zip("xy", batches(), strict=True):
            np.testing.assert_array_equal(file[name], value)
        assert {version.split()[0] for version in file["versions"]} >= {"torch"}


@pytest.mark.parametrize("move", plain_for(RECORDED_MOVES, RECORDED_MOVES[:2]), ids=str)
def test_next_steps_equal_recording(move, x64):
    middle, state_dict, end = load_move(move)
    error = distance(go_on(move, middle, state_dict), end, middle)
    print(f"{move}: {error:.1e}")
    assert error < 1e-11


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_has_structure_of_init(name, dtype):
    """Tree, shapes, dtypes and weak types match, so a compiled step accepts both."""
    params = {key: jnp.asarray(p, dtype) for key, p in PARAMS.items()}
    rate = optax.constant_schedule(0.1)
    tx, state = convert(name, saved(name, dtype=jnp.bfloat16), params, lr=rate, step=STEP[name])
    initial = tx.init(params)
    abstract = lambda tree: jax.tree.map(jax.typeof, tree)  # noqa: E731
    assert abstract(state) == abstract(initial)

    @jax.jit
    @chex.assert_max_traces(1)
    def step(params, state):
        return tx.update(params, state, params)

    _, after = step(params, step(params, initial)[1])
    assert abstract(step(params, state)[1]) == abstract(after)


def find(state, kind):
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


@pytest.mark.parametrize("name", OPTIONS)
def test_schedule_continues_from_step(name):
    rates = []
    tx, state = convert(name, lr=lambda count: rates.append(count) or 0.1, step=STEP[name])
    tx.update(PARAMS, state, PARAMS)
    assert {int(count) for count in rates} == {0, 7}  # at init, and at the next step


def test_moments_are_not_swapped():
    state_dict = saved("Adam", amsgrad=True)
    for entry in state_dict["state"].values():
        entry["max_exp_avg_sq"] = 3 * entry["exp_avg"]
    _, state = convert("Adam", state_dict)
    (mean,), (largest,) = find(state, EmaState), find(state, RunningMaxState)
    assert (mean.mu["b"][0], largest.inner.nu["b"][0], largest.nu["b"][0]) == (1, 2, 3)
    assert [int(s.count) for s in (*find(state, DebiasState), mean)] == [7, 7, 7]
    (dozat,) = find(convert("NAdam")[1], DozatMomentumState)
    assert (dozat.weight, dozat.mu["w"][0, 0], dozat.count) == (0.75, 1, 7)

    state_dict = saved("RMSprop", centered=True, momentum=0.9)
    for entry in state_dict["state"].values():
        entry["momentum_buffer"] = 4 * entry["square_avg"]
        entry["grad_avg"] = np.full_like(entry["square_avg"], 0.5)
    state_dict["state"][1]["grad_avg"][0] = 1.5  # below 0 by rounding
    _, state = convert("RMSprop", state_dict)
    (centred,), (velocity,) = find(state, CenteredMeanSquareState), find(state, MomentumState)
    assert (centred.mu["b"][1], centred.nu["b"][1], centred.nu["b"][0]) == (0.5, 0.75, 0)
    assert (velocity.mu["w"] == 4).all()


def test_names_give_parameter_order():
    """JAX sorts the keys of a dict, so its order cannot be used."""
    state_dict = saved("RMSprop")
    passed = jax.tree.map(jnp.asarray, PARAMS)
    assert list(passed) == ["b", "w"]
    with pytest.raises(ValueError, match=r"order of the parameters is unknown.*pass names="):
        convert("RMSprop", state_dict, passed)
    _, expected = convert("RMSprop", state_dict)
    _, by_names = convert("RMSprop", state_dict, passed, names=["w", "b"])
    chex.assert_trees_all_equal(by_names, expected)
    state_dict["param_groups"][0]["param_names"] = ["w", "b"]
    chex.assert_trees_all_equal(convert("RMSprop", state_dict, passed)[1], expected)


@pytest.mark.parametrize("lr", [None, [0.5, optax.constant_schedule(0.25)]])
def test_param_groups_keep_their_options(lr):
    """Several groups equal one optimizer for each group."""
    state_dict = saved("Adam")
    group = state_dict["param_groups"][0]
    first = group | {"params": [0], "weight_decay": 0.1}
    second = group | {"params": [1], "lr": 0.2, "betas": (0.5, 0.6)}
    parted = state_dict | {"param_groups": [first, second]}
    with pytest.raises(ValueError, match="several param_groups; pass names="):
        convert("Adam", parted)
    with pytest.raises(ValueError, match="lr has 1 entries; expected one for each of 2"):
        convert("Adam", parted, names=["w", "b"], lr=[0.1])
    tx, state = convert("Adam", parted, names=["w", "b"], lr=lr)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    for i, (name, alone) in enumerate([("w", first), ("b", second)]):
        rate, param = None if lr is None else lr[i], {name: PARAMS[name]}
        state_dict = {"state": {i: saved("Adam")["state"][i]}, "param_groups": [alone]}
        tx, state = convert("Adam", state_dict, param, lr=rate)
        chex.assert_trees_all_equal(updates[name], tx.update(param, state, param)[0][name])


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_parameter_without_state_starts_at_zero(name):
    state_dict = saved(name)
    full = convert(name, state_dict, step=STEP[name])[1]
    del state_dict["state"][1]
    _, state = convert(name, state_dict, step=STEP[name])
    zeroed = jax.tree_util.tree_map_with_path(
        lambda path, x: x * (getattr(path[-1], "key", "") != "b"), full
    )
    chex.assert_trees_all_equal(state, zeroed)


@pytest.mark.parametrize("name", OPTIONS)
def test_unstarted_state_is_initial(name):
    tx, state = convert(name, saved(name) | {"state": {}})
    chex.assert_trees_all_equal(state, tx.init(PARAMS))


def test_first_gradient_is_not_dampened():
    """Momentum with dampening, set during training."""
    options = saved("SGD", dampening=0.5) | {"state": {}}
    tx, state = convert("SGD", options, step=7, lr=optax.constant_schedule(1.0))
    updates, _ = tx.update(PARAMS, state, PARAMS)
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: -p, PARAMS))


def test_fixed_parameter_may_be_omitted():
    state_dict = saved("Adam")
    del state_dict["state"][1]
    with pytest.raises(ValueError, match=r"different step counts.*'w': 7, 'b': 0.*leave out"):
        convert("Adam", state_dict)
    _, state = convert("Adam", state_dict, {"w": PARAMS["w"]}, names=["w", "b"])
    expected = convert("Adam", None, {"w": PARAMS["w"]} | {"b": PARAMS["b"]})[1]
    chex.assert_trees_all_equal(
        jax.tree.leaves(state), [x for x in jax.tree.leaves(expected) if x.shape != (3,)]
    )
    with pytest.raises(ValueError, match="'b' has a state, but is not in params"):
        convert("Adam", saved("Adam"), {"w": PARAMS["w"]}, names=["w", "b"])


def changed(name, index=None, drop=None, **new):
    """Return a state dict with entries of a parameter, or options, changed or dropped."""
    state_dict = saved(name)
    at = state_dict["param_groups"][0] if index is None else state_dict["state"][index]
    at |= new
    at.pop(drop, None)
    return state_dict


@pytest.mark.parametrize(
    "name, state_dict, arguments, match",
    [
        ("ASGD", saved("SGD"), {}, "must be of presets.torch: SGD, RMSprop, NAdam, Adam, AdamW"),
        ("Adam", saved("SGD"), {}, r"no state dict of Adam.*lack \['amsgrad', 'betas', 'eps'\]"),
        ("RMSprop", saved("Adam"), {}, r"lack \['alpha', 'centered', 'momentum'\]"),
        ("Adam", changed("Adam", swa_lr=0.1), {}, r"have \['swa_lr'\], which Adam does not know"),
        ("SGD", changed("SGD", drop="dampening"), {}, r"lack \['dampening'\]"),
        ("AdamW", changed("AdamW", decoupled_weight_decay=False), {}, "state dict of Adam"),
        ("Adam", changed("Adam", initial_lr=0.2), {}, "scheduler of PyTorch .* is 0.1 now"),
        ("Adam", changed("Adam", 1, exp_avg=np.ones(2)), {}, r"exp_avg of 'b' .*\(2,\); .*\(3,\)"),
        ("Adam", changed("Adam", 1, drop="exp_avg_sq"), {}, "'b' lacks exp_avg_sq or square_avg"),
        ("Adam", changed("Adam", amsgrad=True), {}, "'b' lacks max_exp_avg_sq"),
        ("RMSprop", changed("RMSprop", centered=True), {}, "'b' lacks grad_avg"),
        ("RMSprop", changed("RMSprop", momentum=0.9), {}, "'b' lacks momentum_buffer"),
        ("Adam", changed("Adam", 0, ax=np.ones((3, 2))), {}, r"state of 'w' has \['ax'\]; known"),
        ("Adam", changed("Adam", 1, step=8.0), {}, "different step counts.*'w': 7, 'b': 8"),
        ("NAdam", changed("NAdam", 1, mu_product=0.5), {}, r"mu_product differs.*\[0.25, 0.5\]"),
        ("Adam", None, dict(step=8), "step is 8, but the state dict is at 7"),
        ("SGD", None, dict(lr=lambda count: 0.1), "schedule, .* pass step="),
        ("SGD", None, dict(step=0), "step is 0, but there are momentum buffers"),
        (
            "SGD",
            changed("SGD", dampening=0.5) | {"state": {0: saved("SGD")["state"][0]}},
            {},
            r"\['b'\] have no momentum_buffer",
        ),
        ("Adam", {"optimizer": saved("Adam")}, {}, r"\['optimizer'\]; expected state and param"),
        ("Adam", saved("Adam") | {"state": {"0": {}}}, {}, r"a state of \['0'\], .* have \[0, 1\]"),
        ("Adam", None, dict(names=["w"]), r"2 parameters, but there are 1 names.*\['w'\]"),
        ("Adam", None, dict(names=["w", "w"]), "must be as many and differ"),
        ("Adam", None, dict(names=["w", "c"]), r"params has \['b'\], which are not in the names"),
        ("Adam", None, dict(params={"lstm": PARAMS}), "flat dict of arrays"),
        ("Adam", None, dict(lr=-1.0), "^lr is -1"),
    ],
)
def test_rejects_invalid_state_dict(name, state_dict, arguments, match):
    with pytest.raises(ValueError, match=match):
        convert(name, state_dict, **arguments)


def test_reads_state_dict_without_maximize():
    state_dict = saved("Adam")
    del state_dict["param_groups"][0]["maximize"]
    chex.assert_trees_all_equal(convert("Adam", state_dict)[1], convert("Adam")[1])


def test_loss_has_gradient_of_each_bias(x64):
    """The two gradients are equal, so the sum moves twice as fast as a single bias."""
    weights = {k: jnp.asarray(v) for k, v in load_move(RECORDED_MOVES[0])[0].items()}
    x, y = batches()
    grads = jax.jit(jax.grad(loss))(weights, x[0], y[0])
    for name in weights:
        assert np.any(grads[name])
        if "bias_ih" in name:
            chex.assert_trees_all_equal(grads[name], grads[name.replace("ih", "hh")])


def test_state_is_of_plain_dict():
    """`model.state_dict()` is an OrderedDict, which is another tree than a dict."""
    ordered = OrderedDict(PARAMS)
    for groups in (1, 2):
        state_dict = saved("Adam")
        if groups == 2:
            (group,) = state_dict["param_groups"]
            state_dict["param_groups"] = [group | {"params": [i]} for i in (0, 1)]
        tx, state = optimizer_from_torch(torch.Adam, state_dict, ordered, names=list(PARAMS))
        tx.update(PARAMS, state, PARAMS)
