"""Loss scaling: its rule, what it leaves to a guard, and training in float16."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstm_optax as lo
from lstm_optax.transforms import LossScalingState

PARAMS = {"w": jnp.array([1.0, -2.0])}


def scales_by_hand(finite, initial, interval, factor, min_scale=0.0):
    """Return the scale after each step, by the loop of the paper, section 3.2."""
    scale, in_a_row, found = initial, 0, []
    for ok in finite:
        in_a_row = in_a_row + 1 if ok else 0
        if not ok and scale > min_scale:
            scale = max(scale / factor, min_scale)
        elif in_a_row == interval:
            scale, in_a_row = scale * factor, 0
        found.append(scale)
    return found


def run(tx, gradients, **extra):
    """Return the parameters and states after each step, for gradients of the unscaled loss."""
    params, state, path = PARAMS, tx.init(PARAMS), []
    for g in gradients:
        scaled = {"w": jnp.asarray(g, jnp.float32) * state.scale}
        updates, state = tx.update(scaled, state, params, **extra)
        params = optax.apply_updates(params, updates)
        path.append((params, state))
    return path


def some_overflows(steps=40):
    """Return gradients, and whether each is finite."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(steps, 2))
    finite = rng.uniform(size=steps) > 0.2
    gradients[~finite, 1] = np.resize([np.inf, np.nan, -np.inf], np.sum(~finite))
    return gradients, finite


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_scale_follows_the_rule(factor):
    gradients, finite = some_overflows()
    tx = lo.loss_scaling(lo.adam(0.1), initial=64.0, growth_interval=3, factor=factor)
    path = run(tx, gradients)
    scales = [float(state.scale) for _, state in path]
    assert min(scales) > 1
    np.testing.assert_allclose(scales, scales_by_hand(finite, 64, 3, factor), rtol=1e-6)
    assert path[-1][1].skipped == np.sum(~finite)


def test_steps_equal_those_of_finite_gradients():
    """Skipped steps change nothing in the inner state, and powers of 2 do not round."""
    gradients, finite = some_overflows()
    params, state = run(lo.loss_scaling(lo.adam(0.1), growth_interval=3), gradients)[-1]
    alone = lo.loss_scaling(lo.adam(0.1), initial=1.0, growth_interval=10**9)
    expected, by_hand = run(alone, gradients[finite])[-1]
    chex.assert_trees_all_equal((params, state.inner), (expected, by_hand.inner))


@pytest.mark.slow
def test_scale_equals_torch(need):
    """`torch.amp.GradScaler` has no smallest scale; above it, all scales and steps are equal."""
    torch = need("torch")
    gradients, _ = some_overflows()
    options = dict(growth_factor=2.0, backoff_factor=0.5, growth_interval=3)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, **options)
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    sgd, scales, weights = torch.optim.SGD([w], 0.1), [], []
    for g in gradients:
        sgd.zero_grad()
        scaler.scale(torch.sum(w * torch.tensor(g, dtype=torch.float32))).backward()
        scaler.step(sgd)
        scaler.update()
        scales.append(scaler.get_scale())
        weights.append(w.detach().numpy().copy())
    path = run(lo.loss_scaling(lo.sgd(0.1), initial=64.0, growth_interval=3), gradients)
    assert [float(state.scale) for _, state in path] == scales
    np.testing.assert_allclose([p["w"] for p, _ in path], weights, rtol=1e-6)


def test_scale_stops_at_its_ends():
    """At the smallest scale the gradient reaches the inner optimizer; the largest is finite."""
    bad = [[1.0, np.nan]] * 4
    path = run(lo.loss_scaling(lo.guard(lo.sgd(0.1)), initial=4.0), bad)
    assert [float(state.scale) for _, state in path] == [2, 1, 1, 1]
    assert [int(state.skipped) for _, state in path] == [1, 2, 2, 2]
    assert [int(state.inner.skipped) for _, state in path] == [0, 0, 1, 2]
    growing = lo.loss_scaling(lo.sgd(0.0), initial=2.0**126, growth_interval=1)
    scales = [float(state.scale) for _, state in run(growing, np.zeros((3, 2)))]
    assert scales == [2.0**127] * 3


def test_bad_loss_does_not_lower_the_scale():
    tx = lo.loss_scaling(lo.guard(lo.sgd(0.1)))
    for value in (np.nan, np.inf):
        ((params, state),) = run(tx, [[1.0, np.nan]], value=jnp.float32(value))
        assert (state.scale, state.skipped, state.inner.skipped) == (2**15, 0, 1)
        chex.assert_trees_all_equal(params, PARAMS)
    with pytest.raises(ValueError, match="value is 'a', but must be the loss, a number"):
        run(tx, [[1.0, 1.0]], value="a")


def half_loss(params, carry, batch, key):
    """Return a loss with a product in float16, whose gradient is batch · 1e-9."""
    product = params["w"].astype(jnp.float16) * batch.astype(jnp.float16)
    return 1e-9 * jnp.sum(product.astype(jnp.float32)), carry


def take_step(optimizer, batch, loss=half_loss):
    state = lo.init_state(PARAMS, optimizer, (), jax.random.key(0))
    return lo.run_steps(lo.make_step(loss, optimizer), state, jnp.asarray(batch)[None], 1)


def test_small_gradients_of_float16_survive():
    """1e-9 is 0 in float16."""
    batch = jnp.array([3.0, -0.5])
    for optimizer, expected in ((lo.sgd(1e9), 0), (lo.loss_scaling(lo.sgd(1e9)), batch)):
        state, metrics = take_step(optimizer, batch)
        moved = PARAMS["w"] - state.params["w"]
        np.testing.assert_allclose(moved, expected * jnp.ones(2), rtol=1e-2)
        norm = 1e-9 * np.linalg.norm(expected * jnp.ones(2))
        assert metrics.grad_norm == pytest.approx(norm, rel=1e-2)
        assert metrics.loss == pytest.approx(1e-9 * 4, rel=1e-3)


def test_gradients_in_float16_are_divided_in_float32():
    """Divided in float16, 1e-9 would be 0 again; the updates are float16, as the parameters."""
    tx = lo.loss_scaling(lo.adam(0.5, eps=0.0))
    params = {"w": jnp.ones(2, jnp.float16)}
    gradient = {"w": jnp.full(2, 1e-9 * 2**15, jnp.float16)}
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert updates["w"].dtype == jnp.float16
    np.testing.assert_allclose(updates["w"], -0.5, rtol=1e-3)


def test_overflow_is_counted_and_not_an_error():
    """The scaled gradient overflows float16 until the scale is small enough."""

    def loss(params, carry, batch, key):
        return 1e9 * half_loss(params, carry, batch, key)[0], carry

    optimizer = lo.loss_scaling(lo.sgd(0.1))
    state = lo.init_state(PARAMS, optimizer, (), jax.random.key(0))
    batches = lambda position: np.array([100.0, 1.0], np.float32)  # noqa: E731
    result = lo.fit(lo.make_step(loss, optimizer), state, batches, steps=10, eval_every=5)
    events = [(r["overflows"], r["skipped"], r["loss_scale"]) for r in result.history]
    assert events == [(5, 0, 1024.0), (1, 0, 512.0)]  # 512 · 100 < 65,504
    moved = PARAMS["w"] - result.state.params["w"]
    np.testing.assert_allclose(moved, [4 * 0.1 * 100, 4 * 0.1], rtol=1e-3)


def test_persistent_overflow_ends_the_run():
    optimizer = lo.loss_scaling(lo.sgd(0.1))
    state = lo.init_state(PARAMS, optimizer, (), jax.random.key(0))

    def loss(params, carry, batch, key):
        return jnp.sum(jnp.sqrt(params["w"] - params["w"])), carry

    batches = lambda position: np.ones(1)  # noqa: E731
    with pytest.raises(lo.NonFiniteError, match="step 16 is not finite: loss 0, gradient norm nan"):
        lo.fit(lo.make_step(loss, optimizer), state, batches, steps=99)


def test_scaling_changes_no_bit_in_float32():
    """Except where a number would be subnormal; the scale is a power of 2."""
    batch = jnp.array([0.3, -0.7])

    def loss(params, carry, batch, key):
        return jnp.sum(jnp.tanh(params["w"] * batch) ** 2), carry

    state, metrics = take_step(lo.loss_scaling(lo.adam(0.1)), batch, loss)
    expected, plain = take_step(lo.adam(0.1), batch, loss)
    chex.assert_trees_all_equal(state.params, expected.params)
    assert (metrics.loss, metrics.grad_norm) == (plain.loss, plain.grad_norm)


def test_loss_scaling_must_be_outermost():
    for optimizer in (
        lo.guard(lo.loss_scaling(lo.sgd(0.1))),
        optax.chain(lo.loss_scaling(lo.sgd(0.1))),
    ):
        with pytest.raises(ValueError, match=r"put it outermost, such as loss_scaling\(guard"):
            take_step(optimizer, jnp.ones(2))


def test_state_is_found():
    (state,) = lo.find_states(lo.loss_scaling(lo.sgd(0.1)).init(PARAMS), LossScalingState)
    assert state.scale == 2**15
