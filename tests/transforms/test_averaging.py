"""Averages of the parameters: their values, their triggers, and their place in a state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from flax import nnx
from rows import gradients_of, params_of

import lstm_optax as lo
from lstm_optax import presets
from lstm_optax.transforms._eval_params import is_averaging

pytestmark = pytest.mark.slow  # compiles much

STEPS, WIDTH = 60, 5
DECAY = 0.9
free = optax.contrib.schedule_free_adamw


def path_of(tx, params, gradients):
    """Return the last state, the parameters after each step, and their `eval_params`."""

    def body(loop, g):
        params, state = loop
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, lo.eval_params(state, params))

    (_, state), path = jax.lax.scan(body, (params, tx.init(params)), gradients)
    return state, *path


def triggered(state):
    """The state after losses that fire a trigger of n = 1."""
    for loss in (1.0, 2.0, 3.0):
        state = lo.report_validation_loss(state, loss)
    return state


def started(inner):
    """A triggered average that has been triggered before the first step."""
    tx = lo.triggered_average(inner, nonmonotone=1)
    return optax.GradientTransformationExtraArgs(lambda p: triggered(tx.init(p)), tx.update)


TRIGGERED = lo.triggered_average(lo.sgd(0.5), nonmonotone=1)

AVERAGES = {
    "polyak": (lo.polyak_average, lambda path: oracles.polyak_average(path, 0)),
    "polyak, start": (
        lambda inner: lo.polyak_average(inner, start=7),
        lambda path: oracles.polyak_average(path, 7),
    ),
    "ema": (
        lambda inner: lo.ema_average(inner, 0.95),
        lambda path: oracles.ema_average(path, 0.95),
    ),
    "ema, decay 0": (lambda inner: lo.ema_average(inner, 0.0), np.asarray),
    "triggered": (started, oracles.asgd_average),
    "not triggered": (lo.triggered_average, np.asarray),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_equals_its_oracle(name, x64):
    make, oracle = AVERAGES[name]
    params = jnp.linspace(-1, 1, WIDTH)
    gradients = jnp.asarray(np.random.default_rng(3).normal(size=(STEPS, WIDTH)))
    _, plain, same = path_of(lo.momentum_sgd(0.1), params, gradients)
    _, path, average = path_of(make(lo.momentum_sgd(0.1)), params, gradients)
    np.testing.assert_array_equal(path, plain)  # the parameters that train are as they were
    np.testing.assert_array_equal(same, plain)
    np.testing.assert_allclose(average, oracle(path), rtol=1e-12)
    assert (name == "ema, decay 0" or name == "not triggered") == np.array_equal(average, path)


def test_average_has_variance_of_theory():
    """SGD at rate η on ½‖θ‖² with noise of variance 1: η/(2 − η) for θ, 1/t for its mean."""
    steps, rate = 2000, 0.2
    noise = jax.random.normal(jax.random.key(0), (steps, 1000))
    tx = lo.polyak_average(lo.sgd(rate), start=100)

    def body(loop, xi):
        params, state = loop
        updates, state = tx.update(params + xi, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.zeros(1000)
    (params, state), _ = jax.lax.scan(body, (start, tx.init(start)), noise)
    assert float(jnp.var(params)) == pytest.approx(rate / (2 - rate), rel=0.15)
    mean = lo.eval_params(state, params)
    assert float(jnp.var(mean)) == pytest.approx(1 / (steps - 100), rel=0.15)


PARAMS, GRADIENTS = params_of(), gradients_of(6)
ONLY = {"matrix": True, "vector": False, "scalar": True}
LABELS = {"matrix": "a", "vector": "b", "scalar": "a"}


def with_sgd(make):
    return make(lo.sgd(0.1))


NESTINGS = {
    "chain": lambda tx: optax.chain(lo.clip_by_global_norm(1.0), optax.chain(tx)),
    "guard": lambda tx: lo.guard(optax.chain(lo.clip_by_global_norm(1.0), tx)),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, ONLY),
    "masked by a function": lambda tx: optax.masked(tx, lambda p: {k: True for k in p}),
    "partition": lambda tx: optax.partition({"a": tx, "b": lo.sgd(0.1)}, LABELS),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda scale: optax.chain(optax.scale(scale), tx)
    )(scale=0.5),
    "keep_dtype": lo.keep_dtype,
}
KINDS = {
    "polyak": with_sgd(lo.polyak_average),
    "ema": lo.ema_average(lo.sgd(0.1), DECAY),
    "triggered": with_sgd(started),
    "schedule-free": free(0.1),
    "torch.ASGD": presets.torch.ASGD(0.1, t0=0),
    "keras": presets.keras.SGD(0.1, use_ema=True, ema_overwrite_frequency=4),
}


def kept(kind, state):
    """Return a function of the parameters to the one average of a state."""
    if kind == "schedule-free":
        (found,) = lo.find_states(state, optax.contrib.ScheduleFreeState)
        return lambda p: optax.contrib.schedule_free_eval_params(found, p)
    (found,) = lo.find_states(state, lo.transforms.AverageState)
    return lambda p: found.average


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_average_is_found_in_any_nesting(kind, nesting):
    tx = optax.with_extra_args_support(NESTINGS[nesting](KINDS[kind]))
    state, path, average = path_of(tx, PARAMS, GRADIENTS)
    last, evaluated = (jax.tree.map(lambda x: x[-1], tree) for tree in (path, average))
    sees = {"masked": ["matrix", "scalar"], "partition": ["matrix", "scalar"]}.get(nesting, last)
    masked = {k: last[k] if k in sees else optax.MaskedNode() for k in last}
    expected = kept(kind, state)(masked)
    for name in last:
        if name in sees:
            np.testing.assert_allclose(evaluated[name], expected[name], rtol=1e-6)
            assert not np.allclose(evaluated[name], last[name], rtol=1e-3)
        else:
            np.testing.assert_array_equal(evaluated[name], last[name])
    assert is_averaging(state)


def test_schedule_free_equals_optax():
    state, path, average = path_of(free(0.1), PARAMS, GRADIENTS)
    last = jax.tree.map(lambda x: x[-1], path)
    expected = optax.contrib.schedule_free_eval_params(state, last)
    chex.assert_trees_all_equal(lo.eval_params(state, last), expected)


def test_partitions_have_averages_of_their_own():
    parts = {"a": lo.polyak_average(lo.sgd(0.1)), "b": lo.ema_average(lo.adam(0.1), DECAY)}
    _, path, average = path_of(optax.partition(parts, LABELS), PARAMS, GRADIENTS)
    for name, oracle in {
        "matrix": lambda path: oracles.polyak_average(path, 0),
        "scalar": lambda path: oracles.polyak_average(path, 0),
        "vector": lambda path: oracles.ema_average(path, DECAY),
    }.items():
        rows = np.asarray(path[name]).reshape(6, -1)
        np.testing.assert_allclose(
            np.asarray(average[name]).reshape(6, -1), oracle(rows), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["polyak", "schedule-free"])
def test_mask_excludes_a_branch(kind):
    params = {"branch": {"x": jnp.ones(2), "y": jnp.zeros(3)}, "leaf": jnp.ones(4)}
    tx = optax.masked(KINDS[kind], {"branch": False, "leaf": True})
    gradients = jax.tree.map(lambda p: jnp.ones((3, *p.shape)), params)
    _, path, average = path_of(tx, params, gradients)
    chex.assert_trees_all_equal(average["branch"], path["branch"])
    alone = path_of(KINDS[kind], params["leaf"], gradients["leaf"])[2]
    np.testing.assert_allclose(average["leaf"], alone, rtol=1e-6)


def test_eval_params_without_average():
    state = lo.guard(lo.nadam(0.1)).init(PARAMS)
    assert lo.eval_params(state, PARAMS)["matrix"] is PARAMS["matrix"]
    assert not is_averaging(state)


@pytest.mark.parametrize("kind", KINDS)
def test_average_starts_as_the_parameters(kind):
    state = KINDS[kind].init(PARAMS)
    chex.assert_trees_all_close(lo.eval_params(state, PARAMS), PARAMS, rtol=1e-6)


def test_is_averaging_follows_start():
    tx = lo.polyak_average(lo.sgd(0.1), start=2)
    params, state = PARAMS, tx.init(PARAMS)
    seen = []
    for _ in range(5):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(bool(is_averaging(state)))
    assert seen == [False, False, False, True, True]  # θ₃ is the first, and alone


@pytest.mark.parametrize(
    "tx",
    [
        lo.polyak_average(lo.ema_average(lo.sgd(0.1), DECAY)),
        optax.chain(lo.ema_average(lo.sgd(0.1), DECAY), started(optax.identity())),
        optax.contrib.schedule_free(lo.polyak_average(lo.sgd(0.1)), 0.1),
        lo.polyak_average(free(0.1)),
        lo.guard(lo.polyak_average(optax.masked(lo.polyak_average(lo.sgd(0.1)), ONLY))),
    ],
)
def test_two_averages_of_a_leaf_raise(tx):
    with pytest.raises(ValueError, match="has 2 averages in the optimizer, but must have at most"):
        lo.eval_params(tx.init(PARAMS), PARAMS)


def test_eval_params_rejects_other_trees():
    state = optax.flatten(lo.polyak_average(lo.sgd(0.1))).init(PARAMS)
    with pytest.raises(ValueError, match="around `optax.flatten` or `by_gate`, not inside it"):
        lo.eval_params(state, PARAMS)
    lstm = lo.LSTMParams(jnp.ones((1, 8)), jnp.ones((2, 8)), jnp.ones(8))
    state = lo.by_gate(lo.polyak_average(lo.sgd(0.1))).init(lstm)
    with pytest.raises(ValueError, match="around `optax.flatten` or `by_gate`, not inside it"):
        lo.eval_params(state, lstm)
    lstm = lo.LSTMParams(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.ones(4))  # shapes that broadcast
    average = lo.by_gate(
        {"bias": lo.sgd(0.1), "forget": lo.sgd(0.1), ("bias", "forget"): lo.sgd(0.1)},
        others=lo.polyak_average(lo.sgd(0.1)),
    )
    with pytest.raises(ValueError, match="around `optax.flatten` or `by_gate`, not inside it"):
        lo.eval_params(average.init(lstm), lstm)
    with pytest.raises(ValueError, match="pass the parameters that the optimizer updates"):
        lo.eval_params(lo.polyak_average(lo.sgd(0.1)).init(PARAMS), {"matrix": jnp.ones(2)})
    with pytest.raises(ValueError, match="pass the parameters that the optimizer updates"):
        lo.eval_params(free(0.1).init(PARAMS), {"matrix": jnp.ones(2)})


def test_average_rejects_invalid_arguments():
    for make, message in (
        (lambda: lo.polyak_average(lo.sgd(0.1), start=-1), r"start is -1, but must be a number of"),
        (
            lambda: lo.ema_average(lo.sgd(0.1), 1.0),
            r"decay is 1.0, but must be a number in \[0, 1\)",
        ),
        (lambda: lo.triggered_average(lo.sgd(0.1), nonmonotone=0), "nonmonotone is 0, but must"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for tx in (lo.polyak_average(lo.sgd(0.1)), lo.triggered_average(lo.sgd(0.1))):
        with pytest.raises(ValueError, match="params is None, but the average needs them"):
            tx.update(PARAMS, tx.init(PARAMS))


def test_bfloat16_average_is_stored_in_float32():
    """The mean is of the rounded parameters; a mean in bfloat16 would stall."""
    tx, params = lo.polyak_average(lo.sgd(0.1)), jnp.ones(3, jnp.bfloat16)
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 3)), jnp.bfloat16)
    state, path = tx.init(params), []
    for g in gradients:  # op by op: a compiler may keep the digits that bfloat16 has not
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params, np.float64))
    average = lo.eval_params(state, params)
    assert average.dtype == jnp.bfloat16 and state.average.dtype == jnp.float32
    np.testing.assert_allclose(state.average, np.mean(path, 0), rtol=1e-6)
    np.testing.assert_array_equal(average, jnp.asarray(state.average, jnp.bfloat16))


def test_skipped_step_is_not_averaged():
    gradients = GRADIENTS | {"scalar": GRADIENTS["scalar"].at[3].set(jnp.nan)}
    state, path, average = path_of(lo.guard(lo.polyak_average(lo.sgd(0.1))), PARAMS, gradients)
    taken = np.delete(np.asarray(path["matrix"]), 3, axis=0)
    assert int(state.skipped) == 1 and int(state.inner.count) == 5
    np.testing.assert_allclose(average["matrix"][-1], taken.mean(0), rtol=1e-5)


def test_validation_loss_reaches_every_trigger():
    tx = lo.guard(
        optax.chain(
            lo.clip_by_global_norm(1.0),
            optax.partition(
                {
                    "a": lo.triggered_average(lo.nadam(0.1), nonmonotone=1),
                    "b": lo.ema_average(lo.triggered_average(lo.sgd(0.1), nonmonotone=2), DECAY),
                },
                LABELS,
            ),
        )
    )
    inside = lo.triggered_average(lo.triggered_average(lo.sgd(0.1), nonmonotone=1), nonmonotone=1)
    before = tx.init(PARAMS), inside.init(PARAMS)
    after = triggered(before)
    states = lo.find_states(after, lo.transforms.TriggeredAverageState)
    assert [(int(s.results), bool(s.triggered)) for s in states] == [
        (3, True),
        (3, False),
        (3, True),
        (3, True),
    ]
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)

    def unfed(node):
        if not isinstance(node, lo.transforms.TriggeredAverageState):
            return node
        return jax.tree.map(unfed, node.average, is_leaf=is_trigger)

    def is_trigger(node):
        return isinstance(node, lo.transforms.TriggeredAverageState)

    rest = [jax.tree.map(unfed, s, is_leaf=is_trigger) for s in (before, after)]
    chex.assert_trees_all_equal(*rest)
    plain = lo.guard(lo.nadam(0.1)).init(PARAMS)
    chex.assert_trees_all_equal(lo.report_validation_loss(plain, 1.0), plain)


def test_validations_between_scans_compile_once():
    """Update, observe and evaluate inside one `jit`, donated, equal the same outside of it."""
    tx = lo.triggered_average(lo.nadam(0.1), nonmonotone=1)
    losses = jnp.array([3.0, 2.0, 3.5, 1.0])

    def interval(params, state, gradients, loss):
        def body(loop, g):
            updates, state = tx.update(g, loop[1], loop[0])
            return (optax.apply_updates(loop[0], updates), state), None

        (params, state), _ = jax.lax.scan(body, (params, state), gradients)
        return params, lo.report_validation_loss(state, loss), lo.eval_params(state, params)

    jitted = jax.jit(chex.assert_max_traces(interval, n=1), donate_argnums=(0, 1))
    ways = []
    for run in (interval, jitted):
        params, state = jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)
        for loss in losses:
            params, state, evaluated = run(params, state, GRADIENTS, loss)
        ways.append((params, state, evaluated))
    chex.assert_trees_all_close(*ways, rtol=1e-5, atol=1e-6)
    assert int(ways[0][1].average.count) == 6  # triggered by the third loss


def test_average_of_a_flax_model():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, lo.polyak_average(lo.sgd(0.5)), wrt=nnx.Param)
    params = []
    for _ in range(3):
        gradients = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3))) ** 2))(model)
        optimizer.update(model, gradients)
        params.append(jnp.copy(model.kernel[...]))
    state = nnx.as_pure(nnx.state(model, nnx.Param))
    nnx.update(model, lo.eval_params(nnx.as_pure(optimizer.opt_state), state))
    np.testing.assert_allclose(model.kernel[...], np.mean(params, 0), rtol=1e-6)
