"""The calls into the native library, with their rules for `vmap` and for sharded rows.

All arrays are float32, `flags` uint8; [0, batch] flags say that none is set. A mapped axis of
arrays is folded into the rows of the batch; mapped weights run one call after another.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

PAD = 16
"""Units of a private array are padded to a multiple of this; PAD of kernels.h."""


def padded(hidden: int) -> int:
    """Return the number of units in a row of a private array."""
    return -(-hidden // PAD) * PAD


@functools.cache
def forward(reverse: bool, save: bool) -> Callable[..., Any]:
    """Return (x, kernel_ih, kernel_hh, bias, h, c, flags) → (outputs, h, c, gates, c_before).

    gates [time, batch, 4, padded(hidden)] and c_before [time, batch, padded(hidden)] are what
    `backward` reads; their time is 0 without `save`.
    """

    def run(x, kernel_ih, kernel_hh, bias, h, c, flags):
        time, batch, hidden = *x.shape[:2], h.shape[1]
        saved, units = time if save else 0, padded(hidden)
        shapes = [(time, batch, hidden), h.shape, c.shape]
        shapes += [(saved, batch, 4, units), (saved, batch, units)]
        arguments = (x, kernel_ih, kernel_hh, bias, h, c, flags)
        return _call("forward", shapes, arguments, reverse=reverse)

    rule = "t b f, f n, h n, n, b h, b h, u b -> t b h, b h, b h, s b g p, s b p"
    return _with_rules(run, rule)


@functools.cache
def backward(reverse: bool, clip: int) -> Callable[..., Any]:
    """Return (gates, c_before, kernel_hh, d_outputs, d_h, d_c, flags, bounds) → (dz, d_h, d_c).

    dz replaces `gates` in place. `clip` is 0 for none, 1 for bounds on entries, 2 for bounds on
    norms; `bounds` are the low and high of h, c and the gates.
    """

    def run(*arguments):
        gates, d_h, d_c = arguments[0], arguments[4], arguments[5]
        shapes = [gates.shape, d_h.shape, d_c.shape]
        return _call("backward", shapes, arguments, {0: 0}, reverse=reverse, clip=np.int64(clip))

    rule = "t b g p, t b p, h n, t b h, b h, b h, u b, k -> t b g p, b h, b h"
    return _with_rules(run, rule)


@functools.cache
def input_gradient() -> Callable[..., Any]:
    """Return (dz, kernel_ih) → d_x."""

    def run(dz, kernel_ih):
        shape = (*dz.shape[:2], kernel_ih.shape[0])
        return _call("input_gradient", [shape], (dz, kernel_ih))[0]

    return _with_rules(run, "t b g p, f n -> t b f")


@functools.cache
def weight_gradient(reverse: bool) -> Callable[..., Any]:
    """Return (x, h, outputs, flags, dz) → the gradients of kernel_ih, kernel_hh and bias."""

    def run(x, h, outputs, flags, dz):
        columns = 4 * h.shape[1]
        shapes = [(x.shape[2], columns), (h.shape[1], columns), (columns,)]
        return _call("weight_gradient", shapes, (x, h, outputs, flags, dz), reverse=reverse)

    return _with_rules(run, "t b f, b h, t b h, u b, t b g p -> f n, h n, n")


def _call(name: str, shapes: list[tuple], arguments: tuple, aliases=None, **attributes) -> Any:
    known: dict[str, Any] = {}
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.manual_axes:  # inside `shard_map` the results vary over the axes that an input does
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        known = {
            "sharding": sharding,
            "manual_axis_type": jax.typeof(arguments[0]).manual_axis_type,
        }
    results = [jax.ShapeDtypeStruct(shape, jnp.float32, **known) for shape in shapes]
    call = jax.ffi.ffi_call(f"lstm_optax_{name}", results, input_output_aliases=aliases)
    return call(*arguments, **attributes)


def _with_rules(run: Callable, rule: str) -> Callable:
    """Add the rules for sharding and `vmap`, both from the position of "b", the rows, in `rule`."""
    return _fold_mapped_rows(_split_rows(run, rule), rule)


def _row_axes(side: str) -> list[int | None]:
    """Return the axis of the rows in each array of one side of a rule."""
    names = [array.split() for array in side.split(",")]
    return [array.index("b") if "b" in array else None for array in names]


def _fold_mapped_rows(run: Callable, rule: str) -> Callable:
    axes, result_axes = map(_row_axes, rule.split("->"))
    mapped = custom_vmap(run)

    @mapped.def_vmap
    def _rule(size, batched, *arguments):
        fold = None not in result_axes and not any(
            is_batched and axis is None for is_batched, axis in zip(batched, axes, strict=True)
        )
        if not fold:
            moving = [a for a, is_batched in zip(arguments, batched, strict=True) if is_batched]

            def one(moving):
                rest = iter(moving)
                pairs = zip(arguments, batched, strict=True)
                return mapped(*(next(rest) if is_batched else a for a, is_batched in pairs))

            results = jax.lax.map(one, moving)
        else:

            def into_rows(a, is_batched, axis):
                if axis is None:
                    return a
                a = a if is_batched else jnp.broadcast_to(a[None], (size, *a.shape))
                a = jnp.moveaxis(a, 0, axis)
                return a.reshape(*a.shape[:axis], size * a.shape[axis + 1], *a.shape[axis + 2 :])

            results = mapped(*map(into_rows, arguments, batched, axes))

            def out_of_rows(a, axis):
                split = (size, a.shape[axis] // size)
                a = a.reshape(*a.shape[:axis], *split, *a.shape[axis + 1 :])
                return jnp.moveaxis(a, axis, 0)

            flat, tree = jax.tree.flatten(results)
            results = jax.tree.unflatten(tree, map(out_of_rows, flat, result_axes))
        return results, jax.tree.map(lambda _: True, results)

    return mapped


def _split_rows(run: Callable, rule: str) -> Callable:
    """Run one call for the rows on each device; what has no rows is summed over the devices."""
    axes, result_axes = map(_row_axes, rule.split("->"))  # the first array has rows
    names = dict.fromkeys(rule.replace("->", " ").replace(",", " ").split())  # in their order
    partitioned = custom_partitioning(run)

    def partition(mesh, arguments, results):
        flat, tree = jax.tree.flatten(results)
        spec = tuple(arguments[0].sharding.spec)  # shorter than the array if the rest is whole
        rows = spec[axis] if (axis := axes[0] or 0) < len(spec) else None

        def at(axis):
            spec = () if axis is None else (*(None,) * axis, rows)
            return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

        def run_here(*local):
            found = run(*local)
            if rows is None or None not in result_axes:
                return found
            return jax.tree.map(lambda part: jax.lax.psum(part, rows), found)

        out = jax.tree.unflatten(tree, map(at, result_axes))
        return mesh, run_here, out, tuple(map(at, axes))

    partitioned.def_partition(
        partition=partition,
        sharding_rule=rule,
        need_replication_factors=tuple(name for name in names if name != "b"),
    )

    @functools.wraps(run)
    def choose(*arguments):
        # Inside `shard_map` the arrays are already those of one device.
        manual = jax.sharding.get_abstract_mesh().manual_axes
        return run(*arguments) if manual else partitioned(*arguments)

    return choose
