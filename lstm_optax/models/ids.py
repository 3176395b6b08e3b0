"""Integers that stand for tokens or classes, and what becomes of those out of range."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from lstm_optax.lstm.checks import check_axes, known

LARGEST = 2**31 - 1


def signed_ids(name: str, ids: Any) -> Int[Array, "..."]:
    """Return ids as int32; ValueError where they are no integers."""
    ids = jnp.asarray(ids if hasattr(ids, "dtype") else np.asarray(ids))
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} is {ids.dtype}; expected integers")
    limits = jnp.iinfo(ids.dtype)
    if limits.max > LARGEST:  # what does not fit stays out of range
        ids = jnp.clip(ids, max(limits.min, -LARGEST), LARGEST)
    return ids.astype(jnp.int32)


def check_range(name: str, ids: Any, size: int, *, least: int | None = 0) -> None:
    """Raise ValueError unless those that are known are from `least` to below `size`."""
    values = known(ids)
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if high >= size or (least is not None and low < least):
        found = high if high >= size else low
        expected = f"below {size}" if least is None else f"{least} to {size - 1}"
        raise ValueError(f"{name} has {found}; expected {expected}: there are {size} ids")


def read_ids(name: str, ids: Any, size: int, axes: tuple[str, ...]) -> Int[Array, "..."]:
    """Return ids for an embedding of `size` rows, which reads those out of range as NaN.

    Without this a traced −1 would be read as the last row.

    Raises:
      ValueError: other axes than these, no integers, or an id that is known and out of range.
    """
    check_axes(name, np.shape(ids), axes)
    signed = signed_ids(name, ids)
    check_range(name, ids, size)  # and not `signed`, which is traced under `jit` in any case
    return jnp.where(signed < 0, size, signed)
