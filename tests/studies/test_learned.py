"""The learned rule: equal to Nadam before training, guarded, and kept in files."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learned.learned_rule import learned, scale_by_learned
from learned.loss_watch import WAIT, start_watch, too_high, watch
from learned.tensor_lstm import init_theta
from learned.weights import WeightsError, load_theta, save_theta, theta_hash
from made_theta import trained

from lstm_optax import nadam
from lstm_optax.transforms import find_states

RATE = 0.01
PARAMS = {
    "kernel": np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32),
    "bias": np.full(4, 0.5, np.float32),
    "scalar": np.float32(2),
}


def gradients(steps, scale=1.0):
    """Gradients of very different sizes, some entries 0."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        size = scale * 10 ** rng.uniform(-3, 1)
        entries = {name: rng.normal(size=p.shape) for name, p in PARAMS.items()}
        kept = {name: rng.random(p.shape) < 0.8 for name, p in PARAMS.items()}
        yield {name: jnp.asarray(size * x * kept[name], jnp.float32) for name, x in entries.items()}


def run(rule, found, losses=None):
    """The updates of each step, and the last state."""
    params = jax.tree.map(jnp.asarray, PARAMS)
    state, updates, step = rule.init(params), [], jax.jit(rule.update)
    for t, g in enumerate(found):
        value = {} if losses is None else {"value": jnp.float32(losses[t])}
        new, state = step(g, state, params, **value)
        params = optax.apply_updates(params, new)
        updates.append(new)
    return updates, state


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), ours, theirs)


@pytest.mark.parametrize("losses", [None, np.linspace(2, 1, 20)])
def test_untrained_rule_is_nadam(key, losses):
    rule = optax.chain(scale_by_learned(init_theta(key), base_rate=RATE), optax.scale(-1.0))
    ours, _ = run(rule, gradients(20), losses)
    theirs, _ = run(nadam(RATE), gradients(20))
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * RATE)


def test_trained_rule_ignores_gradient_scale(key):
    rule = scale_by_learned(trained(key), base_rate=RATE)
    ours, _ = run(rule, gradients(20), np.linspace(2, 1, 20))
    scaled, _ = run(rule, gradients(20, 1e4), 1e4 * np.linspace(2, 1, 20))
    plain, _ = run(nadam(RATE), gradients(20))
    assert_close(ours, scaled, rtol=1e-3, atol=1e-6)
    assert np.abs(ours[-1]["kernel"] + plain[-1]["kernel"]).max() > 0.1 * RATE


@pytest.mark.parametrize("sign", [-1, 1])
def test_heads_reach_their_bounds(key, sign):
    bias = jnp.array([sign * 1e3, 0.0, sign * 1e3])
    rule = scale_by_learned(init_theta(key) | {"head_bias": bias}, base_rate=RATE)
    ours, _ = run(rule, gradients(20))
    plain, _ = run(nadam(1.0), gradients(20))

    def expected(u):
        d = -np.asarray(u)
        return (
            RATE * 30 * np.clip(d, -1, 1) if sign > 0 else RATE / 30 * (2 * d - np.clip(d, -1, 1))
        )

    assert max(np.abs(u["kernel"]).max() for u in plain) > 1.2, "the clip has an effect"
    assert_close(ours, jax.tree.map(expected, plain), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("ahead", "weight"), [(-1e3, 0.1), (1e3, 10.0)])
def test_look_ahead_is_from_adam_to_no_momentum(key, ahead, weight):
    theta = init_theta(key) | {"head_bias": jnp.array([0.0, ahead, 0.0])}
    ours, _ = run(scale_by_learned(theta, base_rate=1.0), gradients(20))
    adam, _ = run(optax.adam(1.0), gradients(20))
    plain, _ = run(nadam(1.0), gradients(20))
    mixed = jax.tree.map(lambda a, n: -(a + weight * (n - a)), adam, plain)
    assert_close(ours, mixed, rtol=1e-4, atol=2e-4)


def test_rising_loss_makes_rule_nadam(key):
    losses = np.concatenate([np.linspace(2, 1, 60), np.linspace(1, 9, 60)])
    rule = scale_by_learned(trained(key), base_rate=RATE)
    ours, state = run(rule, gradients(120), losses)
    theirs, _ = run(nadam(RATE), gradients(120))
    assert state.guard.tripped and state.guard.not_finite == 0
    assert not np.any(state.cell.h) and not np.any(state.cell.c)
    assert_close(ours[-1], jax.tree.map(jnp.negative, theirs[-1]), rtol=1e-5, atol=1e-8)
    falling, calm = run(rule, gradients(120), np.linspace(2, 1, 120))
    assert not calm.guard.tripped and np.any(calm.cell.h)
    assert not np.allclose(falling[-1]["kernel"], ours[-1]["kernel"])


def test_watch_ignores_scale_and_shift_of_loss():
    rng = np.random.default_rng(0)
    losses = np.concatenate([np.linspace(2, 1, 60), np.linspace(1, 3, 60)])
    losses = losses + 0.05 * rng.normal(size=120)

    def first_objection(values):
        state, step = start_watch(), jax.jit(watch)
        for t, value in enumerate(values):
            state = step(state, jnp.float32(value))
            if too_high(state):
                return t
        return None

    found = first_objection(losses)
    assert 60 + WAIT <= found < 120
    assert first_objection(100 * losses) == first_objection(losses - 5) == found
    assert first_objection(losses[:60]) is None


@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_infinite_step_is_skipped_and_latched(key, where):
    found, losses = list(gradients(6)), np.ones(6)
    before, last = run(scale_by_learned(trained(key), base_rate=RATE), found[:3], losses)
    if where == "gradient":
        found[3] = found[3] | {"bias": found[3]["bias"].at[1].set(jnp.nan)}
    else:
        losses[3] = np.inf
    rule = scale_by_learned(trained(key), base_rate=RATE)
    ours, state = run(rule, found[:4], losses)
    assert all(not np.any(x) for x in jax.tree.leaves(ours[3]))
    assert_close((state.mu, state.nu, state.count), (last.mu, last.nu, last.count), rtol=0)
    assert state.guard.tripped and state.guard.not_finite == 1 and not np.any(state.cell.h)
    ours, state = run(rule, found, losses)
    assert state.guard.tripped and np.all(np.isfinite(ours[-1]["kernel"])) and state.count == 5
    if where == "gradient":
        ours, state = run(scale_by_learned(trained(key), guard=False), found, losses)
        assert np.isnan(ours[-1]["bias"][1]) and not state.guard.tripped


def test_large_finite_gradient_keeps_cell_finite(key):
    found = [jax.tree.map(lambda p: jnp.full(p.shape, 1e30), PARAMS)] * 2
    _, state = run(scale_by_learned(trained(key), guard=False), found)
    assert np.all(np.isfinite(state.cell.h)) and np.any(state.cell.h)


def test_leaves_keep_their_dtype(key):
    params = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones([]), "c": jnp.zeros((0, 3))}
    rule = learned(trained(key))
    updates, state = rule.update(params, rule.init(params), params, value=1.0)
    assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, params)
    (own,) = find_states(state, type(scale_by_learned(trained(key)).init({})))
    assert own.mu["a"].dtype == own.cell.h.dtype == jnp.float32
    assert all(np.all(np.isfinite(np.asarray(u, np.float32))) for u in jax.tree.leaves(updates))


def test_empty_tree_has_empty_update(key):
    rule = scale_by_learned(init_theta(key))
    updates, state = rule.update({}, rule.init({}), {})
    assert updates == {} and state.count == 1 and state.cell.h.shape == (0, 16)


def test_vmap_equals_single_runs(key):
    theta = trained(key)

    def last(scale, guard):
        rule = learned(theta, base_rate=RATE, guard=guard)
        state = rule.init(PARAMS)
        for g in gradients(3):
            g = jax.tree.map(lambda x: scale * x, g)
            updates, state = rule.update(g, state, PARAMS, value=scale)
        return updates

    scales, guards = jnp.array([1e-3, 1e-2]), jnp.array([True, False])
    many = jax.jit(jax.vmap(last))(scales, guards)
    for i in range(2):
        one = jax.jit(last)(scales[i], guards[i])
        assert_close(jax.tree.map(lambda x, i=i: x[i], many), one, rtol=1e-4, atol=1e-7)


def test_weights_survive_their_file(key, tmp_path):
    theta, path = trained(key), tmp_path / "weights.npz"
    save_theta(path, theta, {"seed": 3})
    loaded, about = load_theta(path)
    assert theta_hash(loaded) == theta_hash(theta) != theta_hash(init_theta(key))
    assert about["seed"] == 3 and path.stat().st_size < 100_000


def test_weights_for_other_features_are_refused(key, tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    save_theta(path, init_theta(key), {})
    monkeypatch.setattr("learned.weights.FEATURES", ("rank", "log size"))
    with pytest.raises(WeightsError, match="expect features with hash .* train the weights again"):
        load_theta(path)


def test_wrong_files_of_weights_are_refused(key, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, about=np.array([{"a": 1}], object))
    with pytest.raises(WeightsError, match="not a file of weights: .* allow_pickle=False"):
        load_theta(path)
    np.savez(path, about=np.array("{}"))
    with pytest.raises(WeightsError, match="not a file of weights: .*kernel_ih"):
        load_theta(path)
    save_theta(path, init_theta(key) | {"head": jnp.zeros((16, 2))}, {})
    with pytest.raises(WeightsError, match=r"head in .* is \(16, 2\), but must be \(16, 3\)"):
        load_theta(path)
    with pytest.raises(WeightsError, match="at most 100000"):
        big = {"kernel_ih": jax.random.normal(key, (200, 400))}
        save_theta(path, init_theta(key) | big, {})
