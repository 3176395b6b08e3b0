"""Numbers from theory, and from the docstrings of the rules."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import optimized
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_for
from rows import params_of

import lstm_optax as lo
from lstm_optax.names import check_optimizer
from lstm_optax.presets import algoperf
from lstm_optax.transforms.muon import muon_direction


def steps_of(tx, gradients):
    """The updates of a single parameter under a row of gradients."""
    state, result = tx.init(jnp.float32(0)), []
    for g in gradients:
        update, state = tx.update(jnp.asarray(g), state, jnp.float32(0))
        result.append(float(update))
    return np.array(result)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_momentum_contracts_by_largest_root(decay, x64):
    """By the roots of z² − (1 + β − η a) z + β; by √β where they are complex."""
    tx = lo.momentum_sgd(0.02, momentum=decay)
    curvatures = jnp.array([1.0, 5.0, 10.0])

    def body(loop, _):
        theta, state = loop
        updates, state = tx.update(curvatures * theta, state)
        return (theta + updates, state), jnp.abs(theta)

    start = (jnp.ones(3), tx.init(jnp.ones(3)))
    path = np.asarray(jax.lax.scan(body, start, length=2000)[1])
    roots = [np.abs(np.roots([1, -(1 + decay - 0.02 * a), decay])).max() for a in curvatures]
    window = 400
    late = [path[window : 2 * window, i].max() / path[:window, i].max() for i in range(3)]
    np.testing.assert_allclose(np.log(late) / window, np.log(roots), rtol=0.02)


def test_momentum_sums_geometric_series():
    np.testing.assert_allclose(steps_of(lo.momentum(0.9), np.ones(200))[-1], 10, rtol=1e-5)
    np.testing.assert_allclose(steps_of(lo.nesterov(lo.momentum(0.9)), [1.0]), [1.9], rtol=1e-6)


def test_debiased_average_of_a_constant():
    debiased = steps_of(lo.debias(lo.ema(0.999), 0.999), np.full(50, 3.0))
    np.testing.assert_allclose(debiased, 3, rtol=1e-6)
    ahead = steps_of(lo.nesterov(lo.debias(lo.ema(0.9), 0.9)), np.full(5, 3.0))
    np.testing.assert_allclose(ahead, 3, rtol=1e-6)


FACTORS = {  # of the learning rate, under a constant gradient, at steps 1, 2, 3, 5, 10, 20
    "torch": (0.004, False, [1.056, 0.784, 0.732, 0.746, 0.843, 0.945]),
    "keras": (1.0, False, [1.063, 0.774, 0.711, 0.710, 0.800, 0.922]),
    "paper": (0.004, True, [1.310, 1.085, 1.032, 1.006, 1.000, 1.000]),
    "optax": (np.inf, False, [1.474, 1.157, 1.078, 1.031, 1.008, 1.002]),
    "ours": (None, False, [1.900, 1.426, 1.269, 1.144, 1.054, 1.014]),
}


@pytest.mark.parametrize("source", FACTORS)
def test_first_steps_of_the_nadams(source):
    """The published names hide rules whose first steps differ by almost two."""
    psi, scheduled_average, expected = FACTORS[source]
    tx = lo.nadam(1.0)
    if psi is not None:
        direction = lo.dozat_momentum(0.9, psi, scheduled_average=scheduled_average)
        second = lo.debias(lo.mean_square(0.999), 0.999)
        tx = optax.chain(lo.precondition(direction, second, eps=1e-8), lo.sgd(1.0))
    taken = -steps_of(tx, np.ones(20))[[0, 1, 2, 4, 9, 19]]
    np.testing.assert_allclose(taken, expected, atol=6e-4)


@pytest.mark.parametrize("decay, factor", [(0.9, 3.162), (0.99, 10.0), (0.999, 31.62)])
def test_cold_start_of_rmsprop(decay, factor):
    assert -steps_of(lo.rmsprop(1.0, decay=decay), [1.0])[0] == pytest.approx(factor, rel=1e-3)


@given(
    decay=st.floats(0.0, 0.999),
    gradients=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=12),
)
def test_rmsprop_momentum_has_cauchy_schwarz_bound(decay, gradients):
    """With β = γ no step exceeds η √(1 − βᵗ)."""
    steps = bounded_steps(
        np.float32(decay), np.pad(np.float32(gradients), (0, 12 - len(gradients)))
    )
    t = np.arange(1, 13)
    assert np.all(np.abs(steps) <= 0.1 * np.sqrt(1 - decay**t) * (1 + 1e-4) + 1e-12)


@jax.jit
def bounded_steps(decay, gradients):
    tx = lo.rmsprop_momentum(0.1, momentum=decay, decay=decay)

    def body(state, g):
        update, state = tx.update(g, state)
        return state, update

    return jax.lax.scan(body, tx.init(jnp.float32(0)), gradients)[1]


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize(
    "dtype", plain_for(["float32", "bfloat16", "float16", "float64"], ["float32", "bfloat16"])
)
@pytest.mark.parametrize("decay", plain_for([0.5, 0.9, 0.95, 0.99, 0.999], [0.9]))
def test_centered_mean_square_is_never_negative(decay, dtype, moving):
    """The textbook n − m² is, for some of 1e4 constant gradients, once m is near g."""
    with jax.enable_x64(dtype == "float64"):
        draws = np.random.default_rng(5).normal(size=(4, 10_000))
        gradients = jnp.asarray(draws if moving else draws[[0, 0, 0, 0]], dtype)
        steps = 400 if moving else int(18 / (1 - decay))  # decay**steps is 1e-8
        program = optimized(variances.lower(gradients, decay, steps))
        least, state = program(gradients, decay, steps)
        assert least >= 0
        for step in range(20):  # and op by op, without a compiler to fuse them
            nu, state = lo.centered_mean_square(decay).update(gradients[step % 4], state)
            assert nu.min() >= 0


@jax.jit
def variances(gradients, decay, steps):
    """The least variance of any entry at any step, and the last state."""
    tx = lo.centered_mean_square(decay)

    def body(step, loop):
        least, state = loop
        nu, state = tx.update(gradients[step % 4], state)
        return jnp.minimum(least, nu.min()), state

    state = tx.init(gradients[0])
    return jax.lax.fori_loop(0, steps, body, (state.nu.min(), state))


def test_unseen_entries_stay_without_epsilon():
    tx = lo.precondition(optax.identity(), lo.mean_square(0.9))
    gradient = jnp.array([0.0, 1e-3])
    updates, _ = tx.update(gradient, tx.init(gradient))
    np.testing.assert_allclose(updates, [0, np.sqrt(10)], rtol=1e-6)


def test_direction_without_size_is_no_step():
    """Where ν is 0 and the direction is not, the step is 0, not the direction."""
    tx = lo.precondition(lo.momentum(1.0), lo.mean_square(0.0))
    np.testing.assert_allclose(steps_of(tx, [2.0, 0.0, 1e-30]), [1, 0, 0])


def test_debias_factor_keeps_its_digits():
    """The naive 1 − decayᵗ is off by 1e-5 at .999 in float32; this form is not."""
    from lstm_optax.transforms.scalars import debias_factor

    counts = jnp.array([1, 2, 10, 1000, 100_000], jnp.int32)
    exact = -np.expm1(np.asarray(counts, float) * np.log(0.999))
    np.testing.assert_allclose(debias_factor(0.999, counts), exact, rtol=3e-7)
    assert abs((1 - np.float32(0.999)) / exact[0] - 1) > 1e-6


def test_nadamw_decays_only_masked_leaves():
    params = params_of()
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = lo.nadamw(0.1, weight_decay=0.5, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    updates, _ = tx.update(zeros, tx.init(params), params)
    chex.assert_trees_all_close(updates["matrix"], -0.05 * params["matrix"], rtol=1e-6)
    assert not np.any(updates["vector"])


def test_unknown_optimizer_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown optimizer 'nadm'; the nearest is 'nadam'"):
        check_optimizer("nadm")
    assert check_optimizer("optax.contrib.muon") == "optax.contrib.muon"


def test_muon_debiases_before_nesterov(x64):
    """The second direction is that of β m/(1 − β³) + (1 − β) g/(1 − β²), here of 73 % newest."""
    beta, (first, second) = 0.95, np.random.default_rng(0).normal(size=(2, 3, 3))
    tx = muon_direction(beta, 1.0)
    _, state = tx.update(jnp.asarray(first), tx.init(jnp.asarray(first)))
    taken, _ = tx.update(jnp.asarray(second), state)
    mean = (1 - beta) * (beta * first + second)
    mix = beta * mean / (1 - beta**3) + (1 - beta) * second / (1 - beta**2)
    share = (1 - beta) * (beta / (1 - beta**3) + 1 / (1 - beta**2))
    np.testing.assert_allclose(share / (share + beta**2 * (1 - beta) / (1 - beta**3)), 0.7278, 1e-4)
    alone = muon_direction(0.0, 1.0)
    expected, _ = alone.update(jnp.asarray(mix), alone.init(jnp.asarray(mix)))
    np.testing.assert_allclose(taken, expected, rtol=1e-9)


def test_awd_clip_is_exact(x64):
    """A norm of just c is not scaled, where the authors' clip divides by c + 1e-6."""
    gradient, tx = jnp.asarray([0.15, 0.2]), lo.awd_sgd(1.0, clip=0.25, weight_decay=0.0)
    step, _ = tx.update(gradient, tx.init(gradient), gradient)
    np.testing.assert_allclose(step, -gradient, rtol=1e-15)
    theirs = algoperf.clip_gradients(0.25)
    scaled, _ = theirs.update(gradient, theirs.init(gradient))
    np.testing.assert_allclose(scaled, gradient * 0.25 / (0.25 + 1e-6), rtol=1e-12)
