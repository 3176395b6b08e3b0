"""Functions with a derivative written by hand, where automatic differentiation returns NaN.

A rule is differentiated where its numbers are learned: by `jax.grad` through several steps. There
the chain rule multiplies an infinite slope, such as that of √ν at 0, by 0. Each function here
computes the same bits with and without its derivative, which is finite, and 0 where there is none.
"""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """Return √x, whose derivative at 0 is 0 here."""
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals, tangents):
    r = root(*primals)
    return r, 0.5 * tangents[0] / jnp.where(r == 0, jnp.inf, r)


@jax.custom_jvp
def divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x / y, and 0 where y = 0."""
    return x / jnp.where(y == 0, jnp.inf, y)


@divide.defjvp
def _divide_jvp(primals, tangents):
    (_, y), (dx, dy) = primals, tangents
    q = divide(*primals)
    return q, divide(dx - q * dy, y)


@jax.custom_jvp
def one_minus_power(complement: jax.Array, count: jax.Array) -> jax.Array:
    """Return 1 − (1 − c)ᵗ for a scalar c in [0, 1] and a count t."""
    return -jnp.expm1(count * jnp.log1p(-complement))


@one_minus_power.defjvp
def _one_minus_power_jvp(primals, tangents):
    c, count = primals
    slope = count * jnp.power(1 - c, jnp.maximum(count - 1, 0))
    return one_minus_power(c, count), slope * tangents[0]
