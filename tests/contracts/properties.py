"""Properties of every rule, as functions of a row of the table.

Each holds for any gradients, numbers, shapes, dtypes and trees in range.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rows import Row

STEPS, ENTRIES = 20, 16
LARGEST = {"linear": 35.0}  # the exponent of |g|; 18 for rules that square it in float32
EPSILONS = {"eps", "eps_root", "epsilon"}
DECAYS = {"decay", "momentum", "b1", "b2", "beta1", "beta2", "beta_1", "beta_2", "rho", "alpha"}
DECAYS |= {"mu", "nu"}
NORMS = {"clipnorm", "global_clipnorm", "grad_clip", "max_norm", "clip"}
SUMS = NORMS | {"quantile"}  # of norms: sums, which depend on their order
FLOATS = (jnp.bfloat16, jnp.float16, jnp.float32)
few = settings(max_examples=10)

ranges = {  # of a number by its name; an ε is raised to its unit, all others are decays
    "learning_rate": st.sampled_from([0.0, 1e-30]) | st.floats(1e-6, 10.0),
    "weight_decay": st.floats(0.0, 10.0),
    "lambd": st.floats(0.0, 10.0),
    "psi": st.sampled_from([0.0, 0.004, 1.0, 1e30, np.inf]) | st.floats(0.0, 100.0),
    "momentum_decay": st.sampled_from([0.0, 0.004, 1.0, 1e30]) | st.floats(0.0, 100.0),
    "initial": st.sampled_from([0.0, 1e-45, 1e30]) | st.floats(0.0, 10.0),
    "step_size": st.floats(-10.0, 10.0),
    "t0": st.floats(0.0, 30.0),
    "clip": st.sampled_from([0.0, 1e-30]) | st.floats(1e-6, 10.0),
    "loss_scale_factor": st.floats(1.0, 65536.0),
    "quantile": st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0),
    "max_consecutive_errors": st.floats(0.0, 10.0),
    "floor": st.floats(0.0, 10.0),
    "rms": st.floats(0.0, 10.0),
    "eps": st.sampled_from([0.0, 1e-12, 1e15]) | st.floats(1e-12, 1.0),
    "decay": st.sampled_from([0.0, 1e-30, 0.999, 1 - 2.0**-23]) | st.floats(0.0, 1 - 2.0**-23),
}
SAME = {
    "lr": "learning_rate",
    "start": "t0",
    "epsilon": "eps",
    "eps_root": "eps",
}
SAME |= dict.fromkeys(NORMS | {"clipvalue"}, "clip")


@st.composite
def numbers_of(draw, row: Row) -> dict[str, float]:
    """Draw a value for each number of a rule, over its documented range and its ends.

    Where ε is 0 all averages decay alike, since m/√ν is only bounded if ν lasts as long as m. A
    variance has no such bound.
    """
    numbers = {n: draw(ranges[SAME.get(n, n if n in ranges else "decay")]) for n in row.numbers}
    if row.centered:
        numbers = {n: max(v, 1e-12) if n in EPSILONS else v for n, v in numbers.items()}
    if any(numbers[n] == 0 for n in EPSILONS & numbers.keys()):
        decay = draw(ranges["decay"])
        numbers = {n: decay if n in DECAYS else v for n, v in numbers.items()}
    numbers = {n: max(v, 1e-12) if n in row.not_zero else v for n, v in numbers.items()}
    return {n: v ** row.units.get(n, 1) if n in EPSILONS else v for n, v in numbers.items()}


def usual_times(row: Row):
    """Draw the usual value of each number of a rule, times up to 1, or 0."""
    factors = st.floats(0.25, 1.0) | st.just(0.0)
    values = {
        n: factors.map(lambda f, v=v, n=n: v * (1 if n in row.not_zero else f))
        for n, v in row.numbers.items()
    }
    return st.fixed_dictionaries(values)


@st.composite
def gradients_of(draw, low: float, high: float) -> np.ndarray:
    """Draw gradients [steps, entries] of size 10^low to 10^high in one of five patterns."""
    low, high = sorted((draw(st.floats(low, high)), draw(st.floats(low, high))))
    pattern = draw(st.sampled_from(["random", "alternating", "constant", "sparse", "zero"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** rng.uniform(low, high, size=(STEPS, ENTRIES))
    signs = rng.choice([-1.0, 1.0], size=size.shape)
    return {
        "random": size * signs,
        "alternating": size * (-1.0) ** np.arange(STEPS)[:, None],
        "constant": np.broadcast_to(size[0] * signs[0], size.shape),
        "sparse": np.where(rng.uniform(size=size.shape) < 0.2, size * signs, 0.0),
        "zero": np.zeros_like(size),
    }[pattern]


@cache
def compiled(row: Row):
    """Return a rule's last state and all its updates, jitted once for all its numbers."""

    @jax.jit
    def run(numbers, params, gradients):
        tx = row.build(**numbers)

        def body(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        return jax.lax.scan(body, tx.init(params), gradients)

    return run


def run(row: Row, numbers, params: np.ndarray, gradients: np.ndarray):
    """Return the last state and all updates of float32 leaves and a bfloat16 one, in float32."""
    numbers = {n: np.float32(v) for n, v in numbers.items()}
    state, updates = compiled(row)(numbers, row.tree.of_16(params), row.tree.of_16(gradients))
    return state, jax.tree.map(lambda u: np.asarray(u, np.float32), updates)


PARAMS = np.random.default_rng(7).normal(size=ENTRIES).astype(np.float32)


@settings(max_examples=25)
@given(data=st.data())
def finite_for_finite_input(row: Row, data):
    numbers = data.draw(numbers_of(row))
    gradients = data.draw(gradients_of(-46.0, LARGEST.get(row.scale, 18.0)))
    for leaf in jax.tree.leaves(run(row, numbers, PARAMS, gradients)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


@few
@given(data=st.data())
def updates_follow_the_scale_of_the_gradient(row: Row, data):
    """Updates and parameters go with a power of c, each ε with its own: exact for c = 2ᵏ."""
    numbers = {n: np.float32(v) for n, v in data.draw(usual_times(row)).items()}
    gradients = data.draw(gradients_of(-2.0, 2.0)).astype(np.float32)
    c = 2.0 ** data.draw(st.integers(-30, 30))
    updates = run(row, numbers, PARAMS, gradients)[1]
    scaled = {n: v * c ** row.units.get(n, 0) for n, v in numbers.items()}
    again = run(row, scaled, PARAMS * c**row.power, gradients * c)[1]
    for ours, leaf in zip(jax.tree.leaves(again), jax.tree.leaves(updates), strict=True):
        np.testing.assert_array_equal(ours, leaf * c**row.power)


@few
@given(data=st.data())
def permuted_entries_are_permuted_updates(row: Row, data):
    numbers = data.draw(usual_times(row))
    gradients = data.draw(gradients_of(-2.0, 2.0))
    first, rest = data.draw(st.permutations(range(4))), data.draw(st.permutations(range(4, 16)))
    order = np.array([*first, *rest])  # the bfloat16 leaf holds the first four
    updates = run(row, numbers, PARAMS, gradients)[1]
    again = run(row, numbers, PARAMS[order], gradients[:, order])[1]
    tolerance = 1e-5 if SUMS & row.numbers.keys() else 0
    for leaf, entries in {"single": order, "half": order[:4]}.items():
        expected = updates[leaf][:, entries]
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(again[leaf], expected, rtol=tolerance, atol=atol)


@dataclass(frozen=True)
class Leaf:
    """A leaf of a drawn tree: its shape, and the dtypes of the parameter and of the gradient."""

    shape: tuple[int, ...]
    param: type = jnp.float32
    gradient: type = jnp.float32


def trees(leaves):
    """Draw nested tuples, lists and dicts of leaves and None, or a single leaf."""

    def nested(inner):
        several = st.lists(inner, max_size=3)
        return several | several.map(tuple) | st.dictionaries(st.sampled_from("abc"), inner)

    return nested(st.recursive(leaves | st.none(), nested, max_leaves=5)) | leaves


def leaves_of(shapes):
    return st.builds(Leaf, shapes, st.sampled_from(FLOATS), st.sampled_from(FLOATS))


shapes = st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2), (0,), (0, 3)])


def signature(tree):
    typed = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    return jax.tree.structure(tree), jax.tree.leaves(typed, is_leaf=lambda x: isinstance(x, tuple))


@few
@given(data=st.data())
def state_is_stable(row: Row, data):
    """Structure, shapes and dtypes, weak ones too, stay in `update` and in a `scan` over it."""
    drawn = data.draw(trees(leaves_of(shapes)))
    tree = row.tree.around(drawn, lambda shape: data.draw(leaves_of(st.just(shape))))
    numbers = data.draw(numbers_of(row))
    if data.draw(st.booleans()):
        numbers = {n: jnp.float32(v) for n, v in numbers.items()}
    tx = row.build(**numbers)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.param), tree)
    gradients = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.gradient), tree)

    def once(params, gradients):
        state, g = tx.init(params), jax.tree.map(lambda x: x[0], gradients)
        updates, new_state = tx.update(g, state, params)

        def body(state, g):
            return tx.update(g, state, params)[::-1]

        return state, new_state, jax.lax.scan(body, state, gradients, 3)[0], updates

    state, *later, updates = jax.eval_shape(once, params, gradients)
    for new_state in later:
        assert signature(new_state) == signature(state)

    def given_dtype(x):
        moment = jnp.promote_types(x.param, jnp.float32)
        return x.shape, jnp.dtype(moment if row.dtype == "moment" else x.gradient)

    assert jax.tree.structure(updates) == jax.tree.structure(params)
    jax.tree.map(lambda u, x: _equal((u.shape, u.dtype), given_dtype(x)), updates, tree)


def _equal(actual, expected):
    assert actual == expected


@settings(max_examples=2)
@given(tree=trees(st.builds(Leaf, shapes)), seed=st.integers(0, 2**32 - 1))
@example(tree={"a": Leaf((2, 3)), "b": [Leaf((3,)), Leaf(())]}, seed=0)
def shapes_and_trees_do_not_matter(row: Row, tree, seed):
    """Every leaf moves alike as a vector in a list in another order, and in one flat vector."""
    rng, tx = np.random.default_rng(seed), row.build()
    draws = [jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), tree) for _ in range(3)]
    treedef = jax.tree.structure(draws[0])
    order = rng.permutation(treedef.num_leaves)

    def listed(tree):
        return [jax.tree.leaves(tree)[i].ravel() for i in order]

    def updates_of(tx, params, *gradients):
        state, result = tx.init(params), []
        for g in gradients:
            updates, state = tx.update(g, state, params)
            result.append(updates)
        return result

    def check(again, **tolerance):
        for mine, other in zip(usual, again, strict=True):
            assert jax.tree.structure(mine) == treedef
            for a, b in zip(listed(mine), other, strict=True):
                np.testing.assert_allclose(a, b, **tolerance)

    usual = updates_of(tx, *draws)
    check(updates_of(tx, *map(listed, draws)), rtol=1e-5 if SUMS & row.numbers.keys() else 0)
    if treedef.num_leaves and not row.by_leaf:
        flat = optax.with_extra_args_support(optax.flatten(tx))
        check(map(listed, updates_of(flat, *draws)), rtol=1e-5, atol=1e-6)  # other rounding
