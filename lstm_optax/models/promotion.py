"""Which arrays of an output layer are rounded to the dtype of its product."""

from typing import Any, TypeVar, cast

import jax.numpy as jnp

Values = TypeVar("Values", bound=tuple[Any, ...])


def promote_factors(values: Values, /, *, dtype: Any = None, inexact: bool = True) -> Values:
    """Cast inputs and kernel to `dtype`, and make the bias float32 or wider.

    The `promote_dtype` of an `nnx.Linear` with bias. Flax casts the bias, too. Its gradient is a
    sum over all tokens, which XLA adds up in the dtype of the cast on a CPU: in bfloat16, a sum of
    more than 256 equal numbers no longer grows.
    """
    del inexact  # all values are floats
    inputs, kernel, bias = values
    wide = bias.astype(jnp.promote_types(bias.dtype, jnp.float32))
    return cast(Values, (jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype), wide))
