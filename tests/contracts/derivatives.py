"""Derivatives through several steps: finite, and equal to central finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rows import Row

import lstm_optax as lo


def loss_of(make):
    """Return a loss that weighs all entries at all steps, of numbers, parameters, gradients."""

    def total(tree):
        leaves = jax.tree.leaves(tree)
        return sum(jnp.sum(jnp.cos(jnp.arange(x.size)) * jnp.ravel(x)) for x in leaves)

    def loss(numbers, params, gradients):
        tx = optax.with_extra_args_support(make(**numbers))

        def body(loop, g):
            params, state = loop
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), total(params) + total(lo.eval_params(state, params)) / 2

        return jnp.sum(jax.lax.scan(body, (params, tx.init(params)), gradients)[1])

    return loss


def check_derivatives(make, numbers, params, gradients, *, one_sided=()):
    """All derivatives are finite, and those with respect to the numbers are the differences'."""
    loss = loss_of(make)
    numbers = {name: jnp.asarray(value, float) for name, value in numbers.items()}
    found = jax.jit(jax.grad(loss, (0, 1, 2)))(numbers, params, gradients)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
    center = np.array(list(numbers.values()))
    steps = np.diag(1e-6 * np.maximum(np.abs(center), 1e-3))
    down = steps * np.array([[name not in one_sided] for name in numbers])
    points = np.array([*(center + steps), *(center - down)])
    at = {name: jnp.asarray(points[:, i]) for i, name in enumerate(numbers)}
    values = jax.jit(jax.vmap(loss, (0, None, None)))(at, params, gradients)
    up, low = np.split(np.asarray(values), 2)
    width = np.diag(points[: len(steps)] - points[len(steps) :])
    rtol = 1e-4 if not one_sided else 1e-2
    exact = [found[0][name] for name in numbers]
    np.testing.assert_allclose(exact, (up - low) / width, rtol=rtol, atol=1e-6)


def check_row(row: Row, steps: int):
    """The numbers of the row are moved off the places where a rule has a kink."""
    numbers = {name: 0.97 * value + 1e-3 for name, value in row.numbers.items()}
    with jax.enable_x64(True):
        check_derivatives(row.build, numbers, *row.tree.smooth(steps))


def derivatives_of_two_steps(row: Row):
    check_row(row, 2)


def derivatives_of_twenty_steps(row: Row):
    check_row(row, 20)
