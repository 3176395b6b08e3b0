"""The guard skips a step that would leave a number that is not finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lstm_optax as lo

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
GOOD = {"a": jnp.array([0.1, -0.2]), "b": jnp.array(0.3)}


def bad(value):
    return {"a": jnp.array([0.1, value]), "b": jnp.array(0.3)}


def run(tx, gradients, params=PARAMS):
    state, path = tx.init(params), []
    update = jax.jit(tx.update)
    for g in gradients:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append((params, state))
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e19, 1e30])
def test_skipped_step_changes_nothing(value):
    """Also for a finite gradient with an infinite square, after which ν would stay infinite."""
    tx = lo.guard(lo.nadam(0.1))
    (before, state), (after, skipped), (again, taken) = run(tx, [GOOD, bad(value), GOOD])
    chex.assert_trees_all_equal(after, before)
    chex.assert_trees_all_equal(skipped.inner, state.inner)
    assert (int(skipped.skipped), int(skipped.in_a_row)) == (1, 1)
    assert (int(taken.skipped), int(taken.in_a_row)) == (1, 0)
    plain = run(lo.nadam(0.1), [GOOD, GOOD])[-1]
    chex.assert_trees_all_close((again, taken.inner), plain, rtol=1e-6)


def test_unguarded_overflow_freezes_its_entry():
    path = run(lo.nadam(0.1), [bad(3e19)] + [GOOD] * 50)
    assert path[-1][0]["a"][1] == path[0][0]["a"][1]
    finite = run(optax.apply_if_finite(lo.nadam(0.1), 5), [bad(3e19)] + [GOOD] * 50)
    assert finite[-1][0]["a"][1] == finite[0][0]["a"][1]
    guarded = run(lo.guard(lo.nadam(0.1)), [bad(3e19)] + [GOOD] * 50)
    assert abs(guarded[-1][0]["a"][1] - guarded[0][0]["a"][1]) > 0.1


def test_guard_skips_overflowing_parameters():
    params = {"a": jnp.array([3e38, 0.0])}
    for tx in (lo.guard(lo.sgd(1.0)), lo.guard(optax.chain(optax.scale(-1e30)))):
        ((after, state),) = run(tx, [{"a": jnp.array([-3e38, 1.0])}], params)
        chex.assert_trees_all_equal(after, params)
        assert int(state.skipped) == 1
    half = {"a": jnp.array([6e4], jnp.float16)}
    ((after, state),) = run(lo.guard(lo.sgd(1.0)), [{"a": jnp.array([-6e4], jnp.float16)}], half)
    assert int(state.skipped) == 1 and float(after["a"][0]) == float(half["a"][0])


def test_guard_stops_after_consecutive_errors():
    tx = lo.guard(lo.adam(0.1), max_consecutive_errors=3)
    nan = bad(np.nan)
    states = [s for _, s in run(tx, [nan, nan, GOOD, nan, nan, nan, GOOD])]
    assert [int(s.in_a_row) for s in states] == [1, 2, 0, 1, 2, 3, 0]
    assert [bool(s.gave_up) for s in states] == [False] * 5 + [True, False]
    assert int(states[-1].skipped) == 5


def test_guard_takes_infinite_initial_state():
    """A state may begin with one, such as the best loss so far."""

    def update(updates, state, params=None):
        return updates, state.at[0].min(jnp.abs(updates["b"]))

    lowest = optax.GradientTransformation(lambda params: jnp.full(2, jnp.inf), update)
    path = run(lo.guard(lowest), [GOOD, bad(np.nan), GOOD])
    assert [int(s.skipped) for _, s in path] == [0, 1, 1]
    np.testing.assert_allclose(path[-1][1].inner, [0.3, np.inf])


def test_guard_checks_updates_without_parameters():
    tx = lo.guard(optax.scale(1e30))
    state = tx.init(GOOD)
    updates, state = tx.update(bad(1e20), state)
    assert int(state.skipped) == 1 and not any(np.any(u) for u in jax.tree.leaves(updates))
    _, state = tx.update(GOOD, state)
    assert int(state.skipped) == 1


def test_guard_accepts_clipped_step():
    tx = lo.guard(optax.chain(lo.clip_by_global_norm(1.0), lo.nadam(0.1)))
    path = run(tx, [bad(3e19), bad(np.nan)])
    assert [int(s.skipped) for _, s in path] == [0, 1]


def test_guard_recovers_around_accumulation():
    """Inside, the NaN would stay in Optax's accumulator, which it resets by a product with 0."""
    gradients = [GOOD] * 3 + [bad(np.nan)] + [GOOD] * 4
    many = optax.MultiSteps(lo.sgd(0.1), 2).gradient_transformation()
    _, state = run(lo.guard(many), gradients)[-1]
    assert (int(state.skipped), int(state.in_a_row)) == (1, 0)
    inside = optax.MultiSteps(lo.guard(lo.sgd(0.1)), 2).gradient_transformation()
    (seen,) = lo.find_states(run(inside, gradients)[-1][1], lo.transforms.GuardState)
    assert int(seen.skipped) > 1


def test_guard_takes_nonfinite_initial_parameter():
    params = {"a": jnp.array([1.0, -jnp.inf])}  # as a mask is
    ((after, state),) = run(lo.guard(lo.sgd(0.1)), [{"a": jnp.array([1.0, 0.0])}], params)
    assert int(state.skipped) == 0 and float(after["a"][0]) == pytest.approx(0.9)


def test_guard_checks_a_given_loss():
    tx = lo.guard(lo.sgd(0.1))
    state = tx.init(PARAMS)
    tx.update(GOOD, state, PARAMS, value=None)
    for value, skipped in ((1.0, 0), (np.inf, 1), (np.nan, 2), (2.0, 2)):
        updates, state = tx.update(GOOD, state, PARAMS, value=jnp.float32(value))
        assert int(state.skipped) == skipped
        assert bool(np.any(updates["a"])) == np.isfinite(value)


def test_guard_skips_every_nonfinite_gradient():
    """Unless a link in front of the guard has dealt with it."""
    clip = lo.clip_by_global_norm(1.0, nonfinite="zero")
    ((_, state),) = run(lo.guard(optax.chain(clip, lo.sgd(0.1))), [bad(np.nan)])
    assert int(state.skipped) == 1
    ((_, state),) = run(optax.chain(clip, lo.guard(lo.sgd(0.1))), [bad(np.nan)])
    assert int(state[1].skipped) == 0


def test_guard_takes_empty_and_integer_states():
    path = run(lo.guard(optax.scale_by_schedule(lambda count: -0.1)), [GOOD, bad(np.nan)])
    assert [int(s.inner.count) for _, s in path] == [1, 1]
