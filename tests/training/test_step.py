"""`make_step` and `run_steps`: one step, and several steps in one dispatch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import lstm_optax as lo


def stacked(first, count):
    return jax.tree.map(lambda *xs: np.stack(xs), *map(toy.batches, range(first, first + count)))


def test_step_is_forward_loss_backward_update():
    step, state = toy.start()
    key = jax.random.fold_in(jax.random.key(1), 0)
    (value, carry), grads = jax.value_and_grad(toy.loss, has_aux=True)(
        state.params, state.carry, toy.batches(0), key
    )
    updates, _ = toy.OPTIMIZER.update(grads, state.opt_state, state.params)
    new, metrics = step(state, toy.batches(0))
    chex.assert_trees_all_close(new.params, optax.apply_updates(state.params, updates))
    chex.assert_trees_all_close(new.carry, carry)
    assert metrics.loss == value
    assert metrics.grad_norm == pytest.approx(float(optax.tree.norm(grads)), rel=1e-6)
    assert int(new.step) == int(new.position) == 1
    assert not any(jax.tree.leaves(metrics.largest))


@pytest.mark.slow
def test_no_gradient_crosses_truncation():
    """The gradient of one window's loss does not reach the parameters in the window before."""
    step, state = toy.start()

    def loss_after(leak):
        first, _ = step(state._replace(params=state.params | {"leak": leak}), toy.batches(0))
        return toy.loss(state.params, first.carry, toy.batches(1), jax.random.key(0))[0]

    assert jax.grad(loss_after)(0.1) != 0  # the carry does depend on them
    norms = []
    for carry in (jnp.zeros(toy.ROWS), jnp.ones(toy.ROWS)):
        norm = step(state._replace(carry=carry), toy.batches(1))[1].grad_norm
        by_hand = jax.grad(lambda p, c=carry: toy.loss(p, c, toy.batches(1), first_key())[0])
        assert norm == pytest.approx(float(optax.tree.norm(by_hand(state.params))), rel=1e-6)
        norms.append(float(norm))
    assert norms[0] != norms[1]


def first_key():
    return jax.random.fold_in(jax.random.key(1), 0)


def test_grouping_steps_changes_no_bit():
    """Dispatches of 1, 2 and 5 steps run the same program and return the same numbers."""
    step, state = toy.start()
    batches = stacked(0, 5)
    at_once, last = lo.run_steps(step, jax.tree.map(jnp.copy, state), batches, np.int32(5))
    in_parts = state
    for first, count in ((0, 1), (1, 2), (3, 2)):
        part = jax.tree.map(lambda b, f=first: np.concatenate([b[f:], b[:f]]), batches)
        in_parts, metrics = lo.run_steps(step, in_parts, part, np.int32(count))
    chex.assert_trees_all_equal(in_parts, at_once)
    chex.assert_trees_all_equal(metrics, last)
    assert int(at_once.step) == 5 == int(at_once.sums.steps)


def test_run_steps_donates_and_traces_once():
    traces = []

    def loss(params, carry, batch, key):
        traces.append(1)
        return toy.loss(params, carry, batch, key)

    optimizer = lo.sgd(0.1)
    step = lo.make_step(loss, optimizer)
    _, state = toy.start()
    state = lo.init_state(state.params, optimizer, state.carry, jax.random.key(0))
    once, _ = lo.run_steps(step, state, stacked(0, 3), np.int32(3))
    after_first = len(traces)
    assert state.params["leak"].is_deleted()
    lo.run_steps(step, once, stacked(0, 3), np.int32(2))
    assert len(traces) == after_first


def test_init_state_copies_arrays():
    params = {"leak": jnp.float32(0.1), "gain": jnp.float32(0.2)}
    zero = jnp.zeros(toy.ROWS)
    state = lo.init_state(params, toy.OPTIMIZER, zero, jax.random.key(1))
    lo.run_steps(toy.STEP, state, stacked(0, 5), np.int32(1))
    assert float(params["leak"]) == pytest.approx(0.1) and not zero.is_deleted()


def test_init_state_rejects_other_key_implementation():
    key = jax.random.key(0, impl="rbg")
    with pytest.raises(ValueError, match="without `impl`"):
        lo.init_state({}, toy.OPTIMIZER, (), key)


def test_dispatch_runs_no_batch_twice():
    step, state = toy.start()
    state, _ = lo.run_steps(step, state, stacked(0, 5), np.int32(9))
    assert int(state.step) == 5


def test_failed_step_returns_state_before_it():
    step, state = toy.start()
    x, y = stacked(0, 5)
    before, _ = lo.run_steps(step, jax.tree.map(jnp.copy, state), (x, y), np.int32(2))
    y[2] = np.inf
    after, metrics = lo.run_steps(step, state, (x, y), np.int32(5))
    chex.assert_trees_all_equal(after, before)
    assert not np.isfinite(metrics.loss)
    assert np.isnan(metrics.largest["leak"]) or metrics.largest["leak"] > 0


def test_optimizer_receives_loss():
    record_loss = optax.GradientTransformationExtraArgs(
        lambda params: jnp.float32(0), lambda u, s, p=None, *, value, **_: (u, value)
    )
    step, state = toy.start(optax.chain(record_loss, lo.sgd(0.1)))
    new, metrics = step(state, toy.batches(0))
    assert new.opt_state[0] == metrics.loss


def guarded(max_consecutive_errors=10):
    """Return a step with a guard in its optimizer, and the state before the first step."""
    optimizer = lo.guard(
        optax.chain(lo.clip_by_global_norm(1e-3), lo.nadam(0.01)),
        max_consecutive_errors=max_consecutive_errors,
    )
    return toy.start(optimizer)


def test_optimizer_receives_extra_args_of_batch():
    """The factor of the learning rate is passed next to the loss."""
    optimizer = optax.chain(lo.guard(lo.sgd(0.1)), lo.scale_by_rate_factor())
    extra_args = lambda batch: {"rate_factor": jnp.abs(batch[0][0, 0])}  # noqa: E731
    _, state = toy.start(optimizer)
    whole, _ = lo.make_step(toy.loss, optimizer)(state, toy.batches(0))
    part, _ = lo.make_step(toy.loss, optimizer, extra_args=extra_args)(state, toy.batches(0))
    factor = abs(toy.batches(0)[0][0, 0])
    assert factor != 1
    for name, start in state.params.items():
        moved = (whole.params[name] - start) * factor
        np.testing.assert_allclose(part.params[name] - start, moved, rtol=1e-5)


def test_skipped_step_changes_only_counters():
    """Parameters, optimizer and carry are unchanged; step and position advance."""
    step, state = guarded()
    x, y = stacked(0, 4)
    y[1] = np.inf
    x[2] = np.nan  # which makes the carry NaN too
    after, metrics = lo.run_steps(step, jax.tree.map(jnp.copy, state), (x, y), np.int32(4))
    assert (int(after.step), int(after.position), int(after.sums.steps)) == (4, 4, 2)
    assert int(after.sums.skipped) == 2 and not metrics.skipped
    unskipped = state
    for position in (0, 3):
        unskipped = unskipped._replace(step=jnp.int32(position), position=jnp.int32(position))
        unskipped, _ = step(unskipped, toy.batches(position))
    chex.assert_trees_all_close(
        (after.params, after.carry, after.opt_state.inner, after.sums.loss.value),
        (
            unskipped.params,
            unskipped.carry,
            unskipped.opt_state.inner,
            unskipped.sums.loss.value,
        ),
        rtol=1e-6,
    )


def test_dispatch_ends_when_guard_gives_up():
    step, state = guarded(max_consecutive_errors=2)
    x, y = stacked(0, 5)
    y[1:4] = np.inf
    before = jax.tree.map(jnp.copy, step(state, toy.batches(0))[0].params)
    after, metrics = lo.run_steps(step, state, (x, y), np.int32(5))
    assert int(after.step) == 3 and metrics.gave_up and metrics.skipped
    chex.assert_trees_all_close(after.params, before, rtol=1e-6)


def test_partial_guard_does_not_skip_nonfinite_step():
    labels = {"leak": "guarded", "gain": "bare"}
    rules = {"guarded": lo.guard(lo.adam(0.1)), "bare": lo.adam(0.1)}
    step, state = toy.start(optax.partition(rules, labels))
    x, y = stacked(0, 3)
    after, metrics = lo.run_steps(step, state, (x, y * np.nan), np.int32(3))
    assert int(after.step) == 0 and not metrics.skipped


ZERO = lo.clip_by_global_norm(1.0, nonfinite="zero")


@jax.custom_vjp
def with_gradient(x, gradient):
    """Return 0, with the given gradient with respect to x."""
    return jnp.float32(0)


with_gradient.defvjp(
    lambda x, gradient: (jnp.float32(0), gradient),
    lambda gradient, cotangent: (cotangent * gradient, jnp.zeros_like(gradient)),
)


def nonfinite_gradient(optimizer, value=np.nan):
    """Take three steps; the gradients of the second are not finite, its loss is."""

    def loss(params, carry, batch, key):
        return with_gradient(params["leak"], batch[0]) + with_gradient(params["gain"], batch[1]), ()

    params = {"leak": jnp.zeros(2), "gain": jnp.float32(0)}
    state = lo.init_state(params, optimizer, (), jax.random.key(0))
    factors = np.full((3, 2), 3.0, np.float32), np.full(3, 4.0, np.float32)
    factors[0][1, 0] = factors[1][1] = value
    return lo.run_steps(lo.make_step(loss, optimizer), state, factors, np.int32(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "optimizer",
    [optax.chain(ZERO, lo.nadam(0.01)), optax.chain(ZERO, lo.guard(lo.momentum_sgd(0.01)))],
    ids=["nadam", "guard"],
)
def test_zeroing_clip_mends_step(optimizer, value):
    state, metrics = nonfinite_gradient(optimizer, value)
    assert int(state.step) == 3 == int(state.sums.steps) and not metrics.skipped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.opt_state)))
    norms = [np.sqrt(3**2 + 3**2 + 4**2), 3.0]  # with and without the bad entries
    assert state.sums.grad_norm.mean(3) == pytest.approx((2 * norms[0] + norms[1]) / 3)
    (clip,) = lo.find_states(state.opt_state, lo.transforms.ClipByGlobalNormState)
    assert (int(clip.nonfinite), int(clip.zeroed)) == (1, 1)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(lo.clip_by_global_norm(1.0), lo.nadam(0.01)),
        optax.chain(lo.nadam(0.01), ZERO),  # the moments are NaN
        optax.partition(
            {"mended": optax.chain(ZERO, lo.nadam(0.01)), "bare": lo.nadam(0.01)},
            {"leak": "mended", "gain": "bare"},
        ),
    ],
    ids=["pass", "behind the moments", "another parameter"],
)
def test_unmended_step_fails(optimizer):
    state, metrics = nonfinite_gradient(optimizer)
    assert (
        int(state.step) == 1 and np.isnan(metrics.grad_norm) and np.isnan(metrics.largest["leak"])
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.opt_state)))


def test_gradient_with_overflowing_square_is_clipped():
    x, y = stacked(0, 2)
    x[0] *= 1e10
    step, state = guarded()
    after, metrics = lo.run_steps(step, state, (x, y), np.int32(1))
    assert metrics.clipped and not metrics.skipped and int(after.sums.clipped) == 1
    assert np.isfinite(metrics.grad_norm) and metrics.grad_norm > 1e18


def test_skipped_finite_gradient_is_in_metrics():
    step, state = toy.start(lo.guard(lo.nadam(0.01)))
    x, y = stacked(0, 1)
    after, metrics = lo.run_steps(step, state, (x * 1e11, y), np.int32(1))
    assert metrics.skipped and np.isfinite(metrics.grad_norm)
    assert float(metrics.largest["gain"]) > 1e19 and int(after.sums.steps) == 0


def test_events_of_each_gate_are_counted():
    """Inside `by_gate` the states have an entry for each gate; one event of a gate is enough."""
    lstm = lo.LSTMParams(jnp.ones((1, 8)), jnp.ones((2, 8)), jnp.zeros(8))
    optimizer = lo.by_gate(lo.guard(optax.chain(lo.clip_by_global_norm(1.0), lo.sgd(0.1))))

    def loss(params, carry, batch, key):
        return jnp.sum(params.kernel_hh * batch), carry

    step = lo.make_step(loss, optimizer)
    state = lo.init_state(lstm, optimizer, jnp.zeros(1), jax.random.key(0))
    gradients = np.zeros((3, 2, 8), np.float32)
    gradients[1, :, 4:6] = 9.0  # of the cell gate
    gradients[2, :, 2:4] = np.inf  # of the forget gate
    for gradient, clipped, skipped in zip(gradients, (0, 1, 0), (0, 0, 1), strict=True):
        before = int(state.sums.clipped)
        state, metrics = lo.run_steps(step, state, gradient[None], np.int32(1))
        assert (metrics.clipped, metrics.skipped) == (clipped, skipped)
        assert int(state.sums.clipped) == before + clipped


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.astype(jnp.float16), r"has float16\[2\] at its root, expected float32\[2\]"),
        (lambda c: c[:1], r"has float32\[1\] at its root"),
        (lambda c: (c, c), r"nothing at its root, expected float32\[2\]; float32\[2\] at \[0\]"),
        (lambda c: None, "nothing at its root"),
    ],
)
def test_run_steps_rejects_changed_carry(change, message):
    """The error comes before the state is donated."""

    def loss(params, carry, batch, key):
        value, carry = toy.loss(params, carry, batch, key)
        return value, change(carry)

    state = toy.start()[1]
    with pytest.raises(ValueError, match=f"the carry that the loss returns .*{message}"):
        lo.run_steps(lo.make_step(loss, toy.OPTIMIZER), state, stacked(0, 2), 2)
    assert not state.carry.is_deleted()


@pytest.mark.parametrize("optimizer", [None, 0.1, lo.nadam, "nadam", (lo.nadam(0.1),)])
def test_step_and_state_reject_invalid_optimizer(optimizer):
    with pytest.raises(ValueError, match="optimizer is .*, but must be an optax.Grad"):
        lo.init_state({}, optimizer, (), jax.random.key(0))
    with pytest.raises(ValueError, match="optimizer is .*, but must be an optax.Grad"):
        lo.make_step(toy.loss, optimizer)


def test_init_state_rejects_leaves_without_arrays():
    with pytest.raises(ValueError, match=r"params\['w'\] is of type str; expected an array"):
        lo.init_state({"w": "text"}, optax.identity(), (), jax.random.key(0))
    with pytest.raises(ValueError, match=r"carry\[0\] is of type object"):
        lo.init_state({}, optax.identity(), (object(),), jax.random.key(0))
    with pytest.raises(ValueError, match="key is 7; expected a random key"):
        lo.init_state({}, optax.identity(), (), 7)
