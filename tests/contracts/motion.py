"""Contracts of an optimizer in motion: it reaches minima, and follows its schedules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import STEPS, usual
from rows import Row, close, trajectory

import lstm_optax as lo

LONG = 20_000
OFF = {"weight_decay", "lambd"}  # pulls away from the minimum


def rates_of(row: Row) -> list[str]:
    return [n for n in ("learning_rate", "lr") if n in row.numbers]


def descends(row: Row, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer that a rule is, or is the one link of; a size divides the gradient."""
    rates = {n: rate for n in rates_of(row)}
    rule = row.build(**rates, **{n: 0.0 for n in OFF & row.numbers.keys()})
    if row.options.get("maximize"):
        return optax.chain(optax.scale(-1.0), rule)
    if row.make is lo.corrected_momentum:
        return optax.chain(lo.scale_by_learning_rate(rate), rule)
    if row.scale == "square":
        rule = lo.precondition(optax.identity(), rule, eps=1e-8)
    return rule if rates else optax.chain(rule, lo.scale_by_learning_rate(rate))


def ends(make: Callable[[optax.Schedule], optax.GradientTransformation], rate: float) -> jax.Array:
    """Return how far from the minima of both functions a rule ends: [functions, 2]."""
    tx = make(optax.cosine_decay_schedule(rate, LONG))
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
        return jax.lax.fori_loop(0, LONG, body, (x, tx.init(x)))[0] - minimum

    return jax.jit(jax.vmap(run))(minima, jnp.array([False, True]))


def descent_reaches_both_minima(row: Row):
    """Of a parabola and of Rosenbrock's valley."""
    rate = row.descent_rate or (2e-3 if row.scale == "linear" else 2e-2)
    np.testing.assert_allclose(ends(lambda eta: descends(row, eta), rate), 0, atol=0.02)


def scheduled_numbers(row: Row) -> list[str]:
    """Return the numbers of a rule that may be schedules."""
    return [*rates_of(row), *row.schedules]


def path(row: Row, schedules: dict, injected: bool):
    """Return the updates of a rule with these schedules, read by its links or by Optax."""
    params, gradients = row.tree.params(), row.tree.gradients(STEPS)
    if not injected:
        return trajectory(row.build(**schedules), params, gradients)[0]
    make = optax.inject_hyperparams(row.make, static_args=row.static_args)
    return trajectory(make(**row.numbers | schedules, **row.options), params, gradients)[0]


def schedules_of(row: Row, speed: jax.Array, late: bool = False) -> dict:
    """Return, for each number of a rule that may be one, a schedule that moves with `speed`."""

    def schedule(number):
        pace = 0.0 if number in row.read_ahead else speed
        value = row.numbers[number]
        return lambda count: value * (0.75 + 0.25 * jnp.cos(pace * jnp.maximum(count - late, 0)))

    return {number: schedule(number) for number in scheduled_numbers(row)}


def schedules_equal_their_numbers(row: Row):
    """A constant schedule is the number, a moving one is the number injected step by step."""
    own = jax.jit(lambda speed: path(row, schedules_of(row, speed), injected=False))
    close(own(jnp.float32(0)), usual(row), rtol=1e-4)
    late = row.rate_is_late
    fed = jax.jit(lambda speed: path(row, schedules_of(row, speed, late), injected=True))
    moved, expected = own(jnp.float32(1)), fed(jnp.float32(1))
    close(moved, expected, rtol=1e-4)
    with pytest.raises(AssertionError):
        close(moved, usual(row), rtol=1e-4)
