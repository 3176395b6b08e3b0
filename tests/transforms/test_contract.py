"""The contracts that every rule keeps, run over the one table of all rules."""

from functools import cache
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec
from plain import plain_for
from rules_table import (
    EVERYTHING,
    NEED_LSTM,
    OPTAX,
    OWN,
    RULES,
    SAMPLE,
    TRANSFORMS,
    each,
    gradients_of,
    params_of,
    trajectory,
)

import lstm_optax as lo
from lstm_optax import transforms
from lstm_optax.names import OPTIMIZER_NAMES
from lstm_optax.optimizers import OPTIMIZERS

STEPS = 6
FLOATS = (jnp.bfloat16, jnp.float16, jnp.float32)
NO_RULES = {"eval_params", "find_states", "global_norm", "report_validation_loss"}
STATIC = {
    "nadamw": "mask",
    "clip_by_norm_quantile": "window",
    "awd_sgd": "nonmonotone",
}  # no number to be traced
every_rule = pytest.mark.parametrize("name", each(RULES))
sampled_rule = pytest.mark.parametrize("name", plain_for(RULES, SAMPLE))
everything = pytest.mark.parametrize("name", each(EVERYTHING))


def close(actual, expected, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=atol)


def dtypes(tree):
    return jax.tree.map(lambda x: jnp.result_type(x), tree)


def member(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def signature(tree):
    return jax.tree.structure(tree), jax.tree.map(
        lambda x: (jnp.shape(x), jnp.result_type(x)), tree
    )


def test_table_holds_every_rule():
    rules = {name for name in transforms.__all__ if not name.endswith("State")} - NO_RULES
    assert {name.split(",")[0] for name in TRANSFORMS} == rules - NEED_LSTM
    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES
    assert set(OWN) | set(OPTAX) == set(OPTIMIZERS) - NEED_LSTM


@cache
def usual(name):
    """The updates of a rule with its usual numbers."""
    return trajectory(RULES[name].build(), params_of(), gradients_of(STEPS))[0]


@every_rule
def test_numbers_may_be_tracers(name):
    """A sweep over all numbers is one vmap and one trace, and equals the runs one by one."""
    row, params, gradients = RULES[name], params_of(), gradients_of(STEPS)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def sweep(numbers):
        return jax.vmap(lambda n: trajectory(row.build(**n), params, gradients)[0])(numbers)

    factors = {number: np.float32(0.5 + 0.1 * i) for i, number in enumerate(row.numbers)}
    others = {number: float(factors[number] * value) for number, value in row.numbers.items()}
    both = {n: np.array([value, others[n]], np.float32) for n, value in row.numbers.items()}
    swept = sweep(both)
    sweep({number: values * 0.9 for number, values in both.items()})
    close(member(swept, 0), usual(name), rtol=1e-4)
    close(member(swept, 1), trajectory(row.build(**others), params, gradients)[0], rtol=1e-4)


@every_rule
def test_state_tree_never_depends_on_a_number(name):
    row, params = RULES[name], params_of()
    usual = signature(row.build().init(params))
    for number in row.numbers:
        if number not in row.not_zero:
            assert signature(row.build(**{number: 0.0}).init(params)) == usual
        assert signature(row.build(**{number: jnp.float32(0.5)}).init(params)) == usual


@every_rule
@pytest.mark.parametrize("traced", [False, True])
def test_dtypes_stay(name, traced):
    """Moments are promote_types(parameter, float32), counters int32, for every mix of floats."""
    row = RULES[name]
    numbers = {n: jnp.float32(v) for n, v in row.numbers.items()} if traced else {}
    tx = optax.with_extra_args_support(row.build(**numbers))
    for param_dtype in FLOATS:
        params = params_of(param_dtype)
        state = tx.init(params)
        for leaf in jax.tree.leaves(state):
            assert leaf.dtype in (jnp.int32, jnp.float32, jnp.bool_)
        for grad_dtype in FLOATS:
            gradient = member(gradients_of(3, grad_dtype), 0)
            updates, new_state = jax.eval_shape(tx.update, gradient, state, params)
            assert dtypes(new_state) == dtypes(state)
            expected = jnp.dtype(jnp.float32 if row.gives == "moment" else grad_dtype)
            assert set(jax.tree.leaves(dtypes(updates))) == {expected}


@every_rule
@pytest.mark.parametrize("traced", [False, True])
def test_dtypes_stay_in_double_precision(name, traced, x64):
    row = RULES[name]
    numbers = {n: jnp.float64(v) for n, v in row.numbers.items()} if traced else {}
    tx = optax.with_extra_args_support(row.build(**numbers))
    for dtype in (jnp.float32, jnp.float64):
        params, gradient = params_of(dtype), member(gradients_of(3, dtype), 0)
        state = tx.init(params)
        updates, new_state = jax.eval_shape(tx.update, gradient, state, params)
        assert dtypes(new_state) == dtypes(state)
        assert set(jax.tree.leaves(dtypes(updates))) == {jnp.dtype(dtype)}
        shapes = {leaf.shape for leaf in jax.tree.leaves(params)} - {()}
        moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape in shapes]
        assert {leaf.dtype for leaf in moments} <= {jnp.dtype(dtype)}


@everything
def test_jit_and_scan_equal_the_plain_loop(name):
    tx, params = optax.with_extra_args_support(EVERYTHING[name].build()), params_of()
    gradients = gradients_of(3)
    state, updates, at = tx.init(params), [], params
    for step in range(3):
        u, state = tx.update(member(gradients, step), state, at)
        at = optax.apply_updates(at, u)
        updates.append(u)
    scanned, last = jax.jit(lambda p, g: trajectory(tx, p, g))(params, gradients)
    close(scanned, jax.tree.map(lambda *us: jnp.stack(us), *updates), rtol=1e-4, atol=1e-5)
    close(last, state, rtol=1e-4, atol=1e-5)


@sampled_rule
def test_vmap_over_parameters(name):
    """An ensemble is one vmap: every member moves as it would alone."""
    tx, params, gradients = RULES[name].build(), params_of(), gradients_of(3)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    grads = jax.tree.map(lambda x: jnp.stack([x, -x]), gradients)
    both = jax.vmap(lambda p, g: trajectory(tx, p, g)[0])(many, grads)
    for i in range(2):
        alone = trajectory(tx, member(many, i), member(grads, i))[0]
        close(member(both, i), alone)


@sampled_rule
def test_inject_hyperparams(name):
    row, params, gradients = RULES[name], params_of(), gradients_of(STEPS)
    injected = optax.inject_hyperparams(row.make, static_args=STATIC.get(name, ()))
    updates, state = trajectory(injected(**row.numbers, **row.options), params, gradients)
    close(updates, usual(name), rtol=1e-4)
    assert set(row.numbers) <= set(state.hyperparams)


@sampled_rule
def test_masked_and_partition(name):
    """Under a mask, or a label, a leaf moves as if it were alone."""
    tx, params, gradients = RULES[name].build(), params_of(), gradients_of(STEPS)
    only = {"matrix": True, "vector": False, "scalar": False}
    alone = trajectory(tx, {"matrix": params["matrix"]}, {"matrix": gradients["matrix"]})[0]
    masked = trajectory(optax.masked(tx, only), params, gradients)[0]
    close(masked["matrix"], alone["matrix"])
    close(masked["vector"], gradients["vector"])
    labels = {"matrix": "ours", "vector": "frozen", "scalar": "frozen"}
    parts = optax.partition({"ours": tx, "frozen": optax.set_to_zero()}, labels)
    parted = trajectory(parts, params, gradients)[0]
    close(parted["matrix"], alone["matrix"])
    assert not np.any(parted["vector"])


@sampled_rule
def test_multi_steps(name):
    """Two gradients accumulated are one step of their mean."""
    tx, params, gradients = RULES[name].build(), params_of(), gradients_of(STEPS)
    many = optax.MultiSteps(tx, every_k_schedule=2).gradient_transformation()
    updates = trajectory(many, params, gradients)[0]
    means = jax.tree.map(lambda g: (g[0::2] + g[1::2]) / 2, gradients)
    close(jax.tree.map(lambda u: u[1::2], updates), trajectory(tx, params, means)[0], rtol=1e-4)


@sampled_rule
def test_flatten(name):
    tx, params, gradients = RULES[name].build(), params_of(), gradients_of(STEPS)
    flat = trajectory(optax.flatten(tx), params, gradients)[0]
    close(flat, usual(name))


@sampled_rule
def test_donation_and_one_trace(name):
    """One trace of a donated `scan`, a leaf for every mix of bf16, f16 and f32."""
    tx = optax.with_extra_args_support(RULES[name].build())
    mixes = {f"{p} {g}": (p, g) for p, g in product(map(jnp.dtype, FLOATS), repeat=2)}
    params = {mix: jnp.ones(2, p) for mix, (p, _) in mixes.items()}
    gradients = {mix: jnp.ones((3, 2), g) for mix, (_, g) in mixes.items()}

    @jax.jit
    @chex.assert_max_traces(n=1)
    def fresh(params):
        return tx.init(params)

    @chex.assert_max_traces(n=1)
    def run(state, gradients):
        return jax.lax.scan(lambda s, g: tx.update(g, s, params)[::-1], state, gradients)

    run = jax.jit(run, donate_argnums=0)
    state = fresh(params)
    for _ in range(3):
        state, updates = run(state, gradients)
        assert signature(state) == signature(tx.init(params))
        for leaf in jax.tree.leaves((state, updates)):
            assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
    run(tx.init(params), gradients)  # no array stands twice in a state


@every_rule
def test_init_from_shapes(name):
    """A state's shapes can be had from the parameters' shapes, without memory for either."""
    tx, params = RULES[name].build(), params_of()
    shapes = jax.eval_shape(lambda: params)
    assert signature(tx.init(shapes)) == signature(tx.init(params))
    assert signature(jax.eval_shape(tx.init, shapes)) == signature(tx.init(params))


@every_rule
def test_empty_trees_none_leaves_and_scalars(name):
    tx = optax.with_extra_args_support(RULES[name].build())
    for params in ({}, (), {"a": None, "b": jnp.ones(2)}, jnp.float32(1.0)):
        state = tx.init(params)
        updates, new_state = tx.update(params, state, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert signature(new_state) == signature(state)


@sampled_rule
def test_sharded_parameters(name):
    """Moments lie where their parameters lie, and stay there."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put({"w": jnp.ones((16, 2))}, sharding)
    tx = optax.with_extra_args_support(RULES[name].build())
    state = tx.init(params)
    updates, new_state = jax.jit(tx.update)(params, state, params)
    for leaf in jax.tree.leaves((updates, state, new_state)):
        if leaf.ndim == 2:
            assert leaf.sharding.is_equivalent_to(sharding, 2)
    whole = jax.device_put(params, jax.devices()[0])
    close(updates, tx.update(whole, tx.init(whole), whole)[0])


@every_rule
def test_unknown_extra_arguments(name):
    tx = optax.with_extra_args_support(RULES[name].build())
    params = params_of()
    tx.update(params, tx.init(params), params, value=1.0, unknown="told")


@pytest.mark.parametrize(
    "wrap",
    [
        lo.nesterov,
        lo.running_max,
        lo.keep_dtype,
        lo.guard,
        lo.polyak_average,
        lo.triggered_average,
        lambda inner: lo.ema_average(inner, 0.9),
        lambda inner: lo.debias(inner, 0.9),
        lambda inner: lo.precondition(inner, optax.identity(), eps=1.0),
        lambda inner: lo.precondition(optax.identity(), inner, eps=1.0),
    ],
)
def test_wrappers_pass_extra_arguments_through(wrap):
    told = []

    def update(updates, state, params=None, *, value):
        told.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx, params = wrap(inner), {"a": jnp.ones(2)}
    tx.update(params, tx.init(params), params, value=7)
    assert set(told) == {7}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in NEED_LSTM])
def test_inside_flax(name):
    """The same three steps through nnx.Optimizer, Linen's TrainState, and by hand."""
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    gradient = {"kernel": jnp.full((3, 2), 0.5), "bias": jnp.full(2, -0.5)}
    tx = EVERYTHING[name].build()
    linen = TrainState.create(apply_fn=lambda: None, params=params, tx=tx)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    nnx.update(model, _state(params))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    by_hand, state = params, tx.init(params)
    for _ in range(3):
        updates, state = tx.update(gradient, state, by_hand)
        by_hand = optax.apply_updates(by_hand, updates)
        linen = linen.apply_gradients(grads=gradient)
        optimizer.update(model, _state(gradient))
    close(linen.params, by_hand)
    close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), by_hand)


def _state(tree):
    return nnx.State({name: nnx.Param(value) for name, value in tree.items()})
