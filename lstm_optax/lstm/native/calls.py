"""The calls into the native library.

All arrays are float32, `flags` uint8; [0, batch] flags say that none is set. With `bfloat16` the
factors of all products are rounded to it, where the CPU has instructions for that; else it changes
nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.lstm.native.row_rules import with_row_rules

PAD = 16
"""Units of a private array are padded to a multiple of this; PAD of kernels.h."""


def padded(hidden: int) -> int:
    """Return the number of units in a row of a private array."""
    return -(-hidden // PAD) * PAD


@functools.cache
def forward(
    reverse: bool, save: bool, ids: bool = False, bfloat16: bool = False
) -> Callable[..., Any]:
    """Return (x, kernel_ih, kernel_hh, bias, h, c, flags) → (outputs, h, c, gates, c_before).

    gates [time, batch, 4, padded(hidden)] and c_before [time, batch, padded(hidden)] are what
    `backward` reads; their time is 0 without `save`. With `ids`, x is int32 [time, batch]: for each
    input the feature that is 1, where the others are 0. One that is no feature is read as NaN.
    """

    def run(x, kernel_ih, kernel_hh, bias, h, c, flags):
        time, batch, hidden = *x.shape[:2], h.shape[1]
        saved, units = time if save else 0, padded(hidden)
        shapes = [(time, batch, hidden), h.shape, c.shape]
        shapes += [(saved, batch, 4, units), (saved, batch, units)]
        arguments = (x, kernel_ih, kernel_hh, bias, h, c, flags)
        return _call("forward", shapes, arguments, reverse=reverse, bfloat16=bfloat16)

    axes = "f n, h n, n, b h, b h, u b -> t b h, b h, b h, s b g p, s b p"
    return with_row_rules(run, f"{'t b' if ids else 't b f'}, {axes}")


@functools.cache
def backward(reverse: bool, clip: int, bfloat16: bool = False) -> Callable[..., Any]:
    """Return (gates, c_before, kernel_hh, d_outputs, d_h, d_c, flags, bounds) → (dz, d_h, d_c).

    dz replaces `gates` in place. `clip` is 0 for none, 1 for bounds on entries, 2 for bounds on
    norms; `bounds` are the low and high of h, c and the gates.
    """

    def run(*arguments):
        gates, d_h, d_c = arguments[0], arguments[4], arguments[5]
        shapes = [gates.shape, d_h.shape, d_c.shape]
        attributes = dict(reverse=reverse, clip=np.int64(clip), bfloat16=bfloat16)
        return _call("backward", shapes, arguments, {0: 0}, **attributes)

    axes = "t b g p, t b p, h n, t b h, b h, b h, u b, k -> t b g p, b h, b h"
    return with_row_rules(run, axes)


@functools.cache
def input_gradient(bfloat16: bool = False) -> Callable[..., Any]:
    """Return (dz, kernel_ih) → d_x."""

    def run(dz, kernel_ih):
        shape = (*dz.shape[:2], kernel_ih.shape[0])
        return _call("input_gradient", [shape], (dz, kernel_ih), bfloat16=bfloat16)[0]

    return with_row_rules(run, "t b g p, f n -> t b f")


@functools.cache
def weight_gradient(
    reverse: bool, features: int, ids: bool = False, bfloat16: bool = False
) -> Callable[..., Any]:
    """Return (x, h, outputs, flags, dz) → the gradients of kernel_ih, kernel_hh and bias.

    With `ids`, x is as in `forward`.
    """

    def run(x, h, outputs, flags, dz):
        columns = 4 * h.shape[1]
        shapes = [(features, columns), (h.shape[1], columns), (columns,)]
        arguments = (x, h, outputs, flags, dz)
        return _call("weight_gradient", shapes, arguments, reverse=reverse, bfloat16=bfloat16)

    axes = "b h, t b h, u b, t b g p -> f n, h n, n"
    return with_row_rules(run, f"{'t b' if ids else 't b f'}, {axes}")


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
