"""Every rule that descends reaches the minimum of a parabola and of Rosenbrock's valley."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rules_table import OWN, RULES, TRANSFORMS

import lstm_optax as lo

STEPS = 20_000
SIZES = ("mean_square", "centered_mean_square", "sum_square", "running_max")
RATES = {"keep_dtype": 4e-3, "sum_square": 1.0, "running_max": 0.1}  # else by their scale
OFF = {"weight_decay", "lambd"}  # what pulls away from the minimum


def descends(name: str, rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that a rule is, or is the one link of; a size divides the gradient."""
    row = RULES[name]
    rates = {n: rate for n in ("learning_rate", "lr") if n in row.numbers}
    rule = row.build(**rates, **{n: 0.0 for n in OFF & row.numbers.keys()})
    if row.options.get("maximize"):
        return optax.chain(optax.scale(-1.0), rule)
    if name == "corrected_momentum":
        return optax.chain(lo.scale_by_learning_rate(rate), rule)
    if name.split(",")[0] in SIZES:
        rule = lo.precondition(optax.identity(), rule, eps=1e-8)
    return rule if rates else optax.chain(rule, lo.scale_by_learning_rate(rate))


def ends(make: Callable[[optax.Schedule], optax.GradientTransformation], rate: float) -> jax.Array:
    """How far from the minima of both functions a rule ends: [functions, 2]."""
    tx = make(optax.cosine_decay_schedule(rate, STEPS))
    minima = jnp.array([[1.0, -1.0], [1.0, 1.0]])

    def loss(x, minimum, in_valley):
        parabola = jnp.sum(jnp.square(x - minimum))
        return jnp.where(in_valley, 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, parabola)

    def run(minimum, in_valley):
        def body(_, loop):
            x, state = loop
            updates, state = tx.update(jax.grad(loss)(x, minimum, in_valley), state, x)
            return optax.apply_updates(x, updates), state

        x = jnp.array([-0.5, 0.5])
        return jax.lax.fori_loop(0, STEPS, body, (x, tx.init(x)))[0] - minimum

    return jax.jit(jax.vmap(run))(minima, jnp.array([False, True]))


@pytest.mark.parametrize("name", OWN)
def test_reaches_the_minima(name):
    rate = RATES.get(name, 2e-3 if RULES[name].scale == "linear" else 2e-2)
    np.testing.assert_allclose(ends(lambda eta: descends(name, eta), rate), 0, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_reaches_the_minima_as_a_link(name):
    test_reaches_the_minima(name)
