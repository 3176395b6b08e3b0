"""The contracts of every rule, as functions of a row of the table."""

from functools import cache
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from many_devices import first_devices
from rows import LSTM, H, Row, close, member, signature, trajectory

STEPS = 6
FLOATS = (jnp.bfloat16, jnp.float16, jnp.float32)
MIXES = {f"{p} {g}": (p, g) for p, g in product(map(jnp.dtype, FLOATS), repeat=2)}


def dtypes(tree):
    return [jnp.result_type(x) for x in jax.tree.leaves(tree)]


def filled(shapes, dtype, *lead):
    """Return ones in place of the shapes of a tree, which are plain tuples."""
    return jax.tree.map(
        lambda shape: jnp.ones((*lead, *shape), dtype),
        shapes,
        is_leaf=lambda node: type(node) is tuple,
    )


def other_numbers(row: Row) -> dict[str, float]:
    """Return numbers that differ from the usual ones, each by a factor of its own."""
    factors = {number: np.float32(0.5 + 0.1 * i) for i, number in enumerate(row.numbers)}
    return {number: float(factors[number] * value) for number, value in row.numbers.items()}


@cache
def compiled(row: Row):
    """Return the trajectories with the usual and with other numbers, compiled once for all."""
    numbers = [{}, other_numbers(row)] if row.ours else [{}]
    return jax.jit(lambda p, g: [trajectory(row.build(**n), p, g) for n in numbers])


@cache
def usual_and_others(row: Row):
    return compiled(row)(row.tree.params(), row.tree.gradients(STEPS))


def usual(row: Row):
    """Return the updates of a rule on its tree, with its usual numbers."""
    return usual_and_others(row)[0][0]


def numbers_may_be_tracers(row: Row):
    """A sweep over all numbers is one vmap and one trace, and equals the runs one by one."""
    params, gradients = row.tree.params(), row.tree.gradients(STEPS)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def sweep(numbers):
        return jax.vmap(lambda n: trajectory(row.build(**n), params, gradients)[0])(numbers)

    others = other_numbers(row)
    both = {n: np.array([value, others[n]], np.float32) for n, value in row.numbers.items()}
    swept = sweep(both)
    sweep({number: values * 0.9 for number, values in both.items()})
    for i, (updates, _) in enumerate(usual_and_others(row)):
        close(member(swept, i), updates, rtol=1e-4)


def state_tree_ignores_numbers(row: Row):
    params = row.tree.params()
    expected = signature(row.build().init(params))
    for number in row.numbers:
        if number not in row.not_zero:
            assert signature(row.build(**{number: 0.0}).init(params)) == expected
        assert signature(row.build(**{number: jnp.float32(0.5)}).init(params)) == expected


def dtypes_stay(row: Row):
    """Moments are promote_types(parameter, float32), counters int32, for every mix of floats."""
    shapes = row.tree.smallest
    params = {mix: filled(shapes, p) for mix, (p, _) in MIXES.items()}
    gradients = {mix: filled(shapes, g) for mix, (_, g) in MIXES.items()}
    for numbers in ({}, {n: jnp.float32(v) for n, v in row.numbers.items()}):
        tx = row.build(**numbers)
        state = tx.init(params)
        assert set(dtypes(state)) <= {jnp.dtype(x) for x in (jnp.int32, jnp.float32, jnp.bool_)}
        updates, new_state = jax.eval_shape(tx.update, gradients, state, params)
        assert dtypes(new_state) == dtypes(state)
        for mix, (_, g) in MIXES.items():
            expected = jnp.dtype(jnp.float32 if row.dtype == "moment" else g)
            assert set(dtypes(updates[mix])) == {expected}


def dtypes_stay_in_double_precision(row: Row):
    with jax.enable_x64(True):
        for dtype, traced in product((jnp.float32, jnp.float64), (False, True)):
            numbers = {n: jnp.float64(v) for n, v in row.numbers.items()} if traced else {}
            tx, params = row.build(**numbers), row.tree.params(dtype)
            state, shapes = tx.init(params), {p.shape for p in jax.tree.leaves(params)} - {()}
            updates, new_state = jax.eval_shape(tx.update, params, state, params)
            assert dtypes(new_state) == dtypes(state)
            assert set(dtypes(updates)) == {jnp.dtype(dtype)}
            leaves = jax.tree.leaves(state)
            moments = {leaf.dtype for leaf in leaves if leaf.shape in shapes}
            assert moments <= {jnp.dtype(dtype)}
            if row.tree is LSTM:  # whose moments are blocks of gates
                assert {leaf.dtype for leaf in leaves if leaf.size >= 4 * H} == {jnp.dtype(dtype)}


def jit_and_scan_equal_the_loop(row: Row):
    tx, at = row.build(), row.tree.params()
    gradients = row.tree.gradients(STEPS)
    state, updates = tx.init(at), []
    for step in range(STEPS):
        u, state = tx.update(member(gradients, step), state, at)
        at = optax.apply_updates(at, u)
        updates.append(u)
    scanned, last = usual_and_others(row)[0]
    close(scanned, jax.tree.map(lambda *us: jnp.stack(us), *updates), rtol=1e-4, atol=1e-5)
    close(last, state, rtol=1e-4, atol=1e-5)


def vmap_equals_each_member_alone(row: Row):
    """An ensemble is one vmap: every member moves as it would alone."""
    params, gradients = row.tree.params(), row.tree.gradients(STEPS)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    grads = jax.tree.map(lambda x: jnp.stack([x, -x]), gradients)
    both = jax.jit(jax.vmap(lambda p, g: trajectory(row.build(), p, g)[0]))(many, grads)
    for i in range(2):
        close(member(both, i), compiled(row)(member(many, i), member(grads, i))[0][0])


def injected_hyperparams_equal_numbers(row: Row):
    make = optax.inject_hyperparams(row.make, static_args=row.static_args)
    injected = make(**row.numbers, **row.options)
    updates, state = trajectory(injected, row.tree.params(), row.tree.gradients(STEPS))
    close(updates, usual(row), rtol=1e-4)
    assert set(row.numbers) <= set(state.hyperparams)


def injected_rules_may_be_traced(row: Row):
    """Every rule inits and updates under `jit` with injected numbers, or names its static one."""
    params = row.tree.params()
    tx = optax.inject_hyperparams(row.make)(**row.numbers, **row.options)
    if row.static in ("window", "nonmonotone"):
        message = rf"{row.static} is an? .* static_args=\('{row.static}',\)"
        for init in (tx.init, jax.jit(tx.init)):
            with pytest.raises(ValueError, match=message):
                init(params)
        make = optax.inject_hyperparams(row.make, static_args=row.static)
        tx = make(**row.numbers, **row.options)
    state = jax.eval_shape(tx.init, params)
    again = jax.eval_shape(tx.update, params, state, params)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(again, state)


def masked_and_partitioned_branches_move_alone(row: Row):
    """Under a mask, or a label, a branch moves as if it were alone."""
    tx, kept = row.build(), row.tree.kept
    params, gradients = row.tree.params(), row.tree.gradients(STEPS)
    labels = {name: "ours" if name == kept else "frozen" for name in params}
    masked = optax.masked(tx, {name: name == kept for name in params})
    parted = optax.partition({"ours": tx, "frozen": optax.set_to_zero()}, labels)

    @jax.jit
    def run(params, gradients):
        alone = trajectory(tx, {kept: params[kept]}, {kept: gradients[kept]})[0]
        return alone, *(trajectory(each, params, gradients)[0] for each in (masked, parted))

    alone, masked, parted = run(params, gradients)
    for name in params:
        if name == kept:
            close(masked[name], alone[name])
            close(parted[name], alone[name])
        else:
            close(masked[name], gradients[name])
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(parted[name]))


def multi_steps_equal_their_mean(row: Row):
    """Two gradients accumulated are one step of their mean."""
    params, gradients = row.tree.params(), row.tree.gradients(2 * STEPS)
    many = optax.MultiSteps(row.build(), every_k_schedule=2).gradient_transformation()
    updates = trajectory(many, params, gradients)[0]
    means = jax.tree.map(lambda g: (g[0::2] + g[1::2]) / 2, gradients)
    expected = compiled(row)(params, means)[0][0]
    close(jax.tree.map(lambda u: u[1::2], updates), expected, rtol=1e-4)


def donation_takes_one_trace(row: Row):
    """One trace of a donated `scan`, with a tree for every mix of bf16, f16 and f32."""
    tx, shapes = row.build(), row.tree.smallest
    params = {mix: filled(shapes, p) for mix, (p, _) in MIXES.items()}
    gradients = {mix: filled(shapes, g, 3) for mix, (_, g) in MIXES.items()}

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
        for leaf in jax.tree.leaves((state, updates)):
            assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
    run(tx.init(params), gradients)  # no array appears twice in a state


def init_takes_shapes(row: Row):
    """The shapes of a state follow from the shapes of the parameters, without memory for either."""
    tx, params = row.build(), row.tree.params()
    shapes = jax.eval_shape(lambda: params)
    assert signature(tx.init(shapes)) == signature(tx.init(params))
    assert signature(jax.eval_shape(tx.init, shapes)) == signature(tx.init(params))


def empty_nodes_and_scalars_are_taken(row: Row):
    tx = row.build()
    for params in row.tree.edges:
        state = tx.init(params)
        updates, new_state = tx.update(params, state, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert signature(new_state) == signature(state)


def moments_are_sharded_like_parameters(row: Row):
    """Moments are stored where their parameters are, and stay there."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,), devices=first_devices(8))
    tx = row.build()
    for whole, spec in row.tree.sharded:
        params = jax.device_put(whole, NamedSharding(mesh, spec))
        size = jax.tree.leaves(params)[0].size
        state = tx.init(params)
        updates, new_state = jax.jit(tx.update)(params, state, params)
        for leaf in jax.tree.leaves((updates, state, new_state)):
            if leaf.size == size:
                assert leaf.addressable_shards[0].data.size == size // 8
        close(updates, jax.jit(tx.update)(whole, tx.init(whole), whole)[0])


def unknown_extra_arguments_are_ignored(row: Row):
    tx, params = row.build(), row.tree.params()
    tx.update(params, tx.init(params), params, value=1.0, unknown="seen")


def other_dtypes_are_refused(tx: optax.GradientTransformation, dtype):
    """A leaf of another dtype is refused at `init`, and as a gradient at `update`."""
    tx, params = optax.with_extra_args_support(tx), LSTM.params()
    state = tx.init(params)
    wrong = params | {"head": params["head"] | {"bias": jnp.ones(2, dtype)}}
    shapes = jax.eval_shape(lambda: wrong)
    name = jnp.dtype(dtype).name
    for tree in (wrong, shapes):
        with pytest.raises(
            ValueError, match=rf"the parameter \['head'\]\['bias'\] is {name}; expec"
        ):
            tx.init(tree)
    with pytest.raises(ValueError, match=rf"the gradient \['head'\]\['bias'\] is {name}; expected"):
        tx.update(wrong, state, params)


def complex_numbers_are_refused(row: Row):
    other_dtypes_are_refused(row.build(), jnp.complex64)
