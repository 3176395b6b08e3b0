"""Ids of tokens and classes: dtype, range, and how traced ids out of range are read."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from lstm_optax.lstm.checks import check_axes, known

LARGEST = 2**31 - 1


def signed_ids(name: str, ids: Any) -> Int[Array, "..."]:
    """Return ids as int32; ValueError unless they are integers."""
    ids = jnp.asarray(ids if hasattr(ids, "dtype") else np.asarray(ids))
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"{name} is {ids.dtype}; expected integers")
    limits = jnp.iinfo(ids.dtype)
    if limits.max > LARGEST:  # a wrapped id would be in range again
        ids = jnp.clip(ids, max(limits.min, -LARGEST), LARGEST)
    return ids.astype(jnp.int32)


def check_range(name: str, ids: Any, size: int, *, least: int | None = 0) -> None:
    """Raise ValueError unless all ids are from `least` to below `size`; skip traced ids."""
    values = known(ids)
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if high >= size or (least is not None and low < least):
        found = high if high >= size else low
        expected = f"below {size}" if least is None else f"{least} to {size - 1}"
        raise ValueError(f"{name} has {found}; expected {expected}: there are {size} ids")


def read_ids(name: str, ids: Any, size: int, axes: tuple[str, ...]) -> Int[Array, "..."]:
    """Return ids for an embedding of `size` rows, which reads ids out of range as NaN.

    A traced −1 would otherwise be read as the last row.

    Raises:
      ValueError: wrong number of axes, no integers, or an id out of range that is not traced.
    """
    check_axes(name, np.shape(ids), axes)
    signed = signed_ids(name, ids)
    check_range(name, ids, size)  # not `signed`, which is always traced under `jit`
    return jnp.where(signed < 0, size, signed)
