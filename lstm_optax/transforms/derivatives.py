"""Functions with custom derivatives, for points where automatic differentiation returns NaN.

To learn hyper-parameters, `jax.grad` differentiates through several optimizer steps. There the
chain rule multiplies an infinite derivative, such as that of √ν at 0, by 0. The derivatives here
are finite, and 0 where the function has none; the values are the same with and without them.
"""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return √x, with derivative 0 at x = 0."""
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals, tangents):
    r = safe_sqrt(*primals)
    return r, 0.5 * tangents[0] / jnp.where(r == 0, jnp.inf, r)


@jax.custom_jvp
def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x / y, or 0 where y = 0."""
    return x / jnp.where(y == 0, jnp.inf, y)


@safe_divide.defjvp
def _safe_divide_jvp(primals, tangents):
    (_, y), (dx, dy) = primals, tangents
    q = safe_divide(*primals)
    return q, safe_divide(dx - q * dy, y)


@jax.custom_jvp
def one_minus_power(complement: jax.Array, count: jax.Array) -> jax.Array:
    """Return 1 − (1 − c)ᵗ for a scalar c in [0, 1] and a count t."""
    return -jnp.expm1(count * jnp.log1p(-complement))


@one_minus_power.defjvp
def _one_minus_power_jvp(primals, tangents):
    c, count = primals
    slope = count * jnp.power(1 - c, jnp.maximum(count - 1, 0))
    return one_minus_power(c, count), slope * tangents[0]
