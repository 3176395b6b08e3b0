"""Rules for `vmap` and for sharded rows, of functions whose arrays have the rows of a batch.

A function is described by the axes of its arrays, such as "t b f, f n -> t b n": "b" is the rows.
What has no rows is the same for all of them, or, in a result, a sum over them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

Axes = Sequence[int | None]
"""For each array the axis of its rows, None if it has none."""


def with_row_rules(run: Callable[..., Any], axes: str) -> Callable[..., Any]:
    """Return the function with both rules; it returns one array or a list of them.

    Under `vmap`, a mapped axis is folded into the rows. Where an array without rows is mapped, or a
    result is a sum over the rows, the calls run one after another. With sharded rows, each device
    makes one call with its own rows, and sums over the rows are added up over the devices.
    """
    arguments, results = map(_row_axes, axes.split("->"))
    names = dict.fromkeys(axes.replace("->", " ").replace(",", " ").split())  # in their order
    others = tuple(name for name in names if name != "b")
    split = custom_partitioning(run)
    split.def_partition(
        partition=functools.partial(_partition, run, arguments, results),
        sharding_rule=axes,
        need_replication_factors=others,
    )

    @functools.wraps(run)
    def call(*arrays):
        # Inside `shard_map` the arrays are already those of one device.
        return (run if jax.sharding.get_abstract_mesh().manual_axes else split)(*arrays)

    mapped = custom_vmap(call)

    @mapped.def_vmap
    def _rule(size, batched, *arrays):
        shared = [axis is None for axis in arguments]
        if None in results or any(b and s for b, s in zip(batched, shared, strict=True)):
            found = _call_each(mapped, batched, arrays)
        else:
            found = _call_once(mapped, size, batched, arrays, arguments, results)
        return found, jax.tree.map(lambda _: True, found)

    return mapped


def _row_axes(side: str) -> list[int | None]:
    names = [array.split() for array in side.split(",")]
    return [array.index("b") if "b" in array else None for array in names]


def _call_each(run: Callable, batched: Sequence[bool], arrays: Sequence[Array]) -> Any:
    """Call the function for one index of the mapped axis after another."""

    def call(mapped):
        rest = iter(mapped)
        pairs = zip(arrays, batched, strict=True)
        return run(*(next(rest) if is_mapped else array for array, is_mapped in pairs))

    return jax.lax.map(call, [a for a, is_mapped in zip(arrays, batched, strict=True) if is_mapped])


def _call_once(
    run: Callable,
    size: int,
    batched: Sequence[bool],
    arrays: Sequence[Array],
    axes: Axes,
    result_axes: Axes,
) -> Any:
    """Call the function with the mapped axis, of this size, folded into the rows."""

    def fold(array, is_mapped, axis):
        if axis is None:
            return array
        if not is_mapped:
            array = jnp.broadcast_to(array[None], (size, *array.shape))
        array = jnp.moveaxis(array, 0, axis)
        rows = size * array.shape[axis + 1]
        return array.reshape(*array.shape[:axis], rows, *array.shape[axis + 2 :])

    def unfold(array, axis):
        rows = array.shape[axis] // size
        array = array.reshape(*array.shape[:axis], size, rows, *array.shape[axis + 1 :])
        return jnp.moveaxis(array, axis, 0)

    found, tree = jax.tree.flatten(run(*map(fold, arrays, batched, axes)))
    return jax.tree.unflatten(tree, map(unfold, found, result_axes))


def _partition(
    run: Callable, axes: Axes, result_axes: Axes, mesh: Any, arrays: Any, results: Any
) -> tuple[Any, Callable, Any, Any]:
    """Return the function of one device, and how results and arguments are sharded."""
    axis = next(axis for axis in axes if axis is not None)
    spec = tuple(arrays[axes.index(axis)].sharding.spec)
    rows = spec[axis] if axis < len(spec) else None  # it is shorter if the rest is whole

    def sharding(axis):
        return NamedSharding(
            mesh, PartitionSpec(*(() if axis is None else (None,) * axis + (rows,)))
        )

    def run_here(*local):
        found, tree = jax.tree.flatten(run(*local))
        if rows is not None:
            pairs = zip(found, result_axes, strict=True)
            found = [jax.lax.psum(part, rows) if a is None else part for part, a in pairs]
        return jax.tree.unflatten(tree, found)

    tree = jax.tree.structure(results)
    shardings = jax.tree.unflatten(tree, map(sharding, result_axes))
    return mesh, run_here, shardings, tuple(map(sharding, axes))
