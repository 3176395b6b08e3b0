"""LSTM cells of Flax NNX and Linen to parameters, and back."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from lstm_optax.interop.arrays import (
    check_names,
    check_shapes,
    named_arrays,
    size,
    sizes_of,
    with_arrays,
)
from lstm_optax.lstm.cell import LSTMParams

CELLS = (nnx.LSTMCell, nnx.OptimizedLSTMCell)
LINEN_CELLS = (linen.LSTMCell, linen.OptimizedLSTMCell)

IRRELEVANT = frozenset(
    "dtype param_dtype use_bias kernel_init recurrent_kernel_init bias_init rngs keep_rngs "
    "kernel_metadata recurrent_kernel_metadata bias_metadata parent name".split()
)
"""Attributes that are read elsewhere, or that do not change the outputs for given weights."""


def lstm_params_from_flax(cell: Any) -> LSTMParams:
    """Return the parameters of an LSTM cell of Flax.

        kernel_ih = [ii if ig io],  kernel_hh = [hi hf hg ho],  bias = the biases of [hi hf hg ho]

    A pure function; it works under `jit` and `grad`.

    Args:
      cell: NNX: an `LSTMCell` or `OptimizedLSTMCell`, an `RNN` of one, or the parameters, such as
        `nnx.state(cell, nnx.Param)`. Linen: an `LSTMCell` or `OptimizedLSTMCell` inside the
        `apply` of its module, or the dictionary of its parameters, `variables["params"]["cell"]`
        for a `linen.RNN`. A dictionary does not show attributes such as `carry_init` and
        `gate_fn`; they are assumed to be the defaults.

    Raises:
      ValueError: another kind of cell, an attribute that changes the outputs and is not the
        default (`carry_init`, `gate_fn`, `activation_fn`, `promote_dtype`, or `precision` and
        `dot_general` of an `nnx.Linear`), a missing or unknown name, or a wrong shape.

    Reference: `flax.nnx.OptimizedLSTMCell` and `flax.linen.OptimizedLSTMCell`, Flax 0.12.
    """
    found = _cell_arrays(inner_cell(cell))
    if _is_fused(found):
        hidden, features = size(found, "dense_h/kernel", 0), size(found, "dense_i/kernel", 0)
        _check_flax_cell(found, features, hidden)
        names = "dense_i/kernel", "dense_h/kernel", "dense_h/bias"
        return LSTMParams(*(jnp.asarray(found[name]) for name in names))
    hidden, features = size(found, "hi/kernel", 0), size(found, "ii/kernel", 0)
    _check_flax_cell(found, features, hidden)

    def concatenate_gates(kind: str, own: str) -> jax.Array:
        return jnp.concatenate([found[f"{kind}{gate}/{own}"] for gate in "ifgo"], axis=-1)

    return LSTMParams(
        concatenate_gates("i", "kernel"),
        concatenate_gates("h", "kernel"),
        concatenate_gates("h", "bias"),
    )


def lstm_params_to_flax(params: LSTMParams, cell: Any) -> Any:
    """Return a copy of the cell, or of the tree of its parameters, with these parameters.

    The exact inverse of `lstm_params_from_flax`. A pure function: only the names and shapes of the
    given cell are read, and the parameters keep their own dtype.

    Args:
      params: parameters of one layer in one direction.
      cell: as in `lstm_params_from_flax`; a tree may have `ShapeDtypeStruct` leaves.

    Raises:
      ValueError: as `lstm_params_from_flax`, or parameters and cell have different sizes.
    """
    inner = inner_cell(cell)
    if isinstance(cell, nnx.RNN):
        rnn = nnx.clone(cell)
        rnn.cell = lstm_params_to_flax(params, inner)
        return rnn
    found = _cell_arrays(inner)
    _check_flax_cell(found, *sizes_of(params))
    return with_arrays(inner, _side_by_side(params) if _is_fused(found) else _by_gate(params))


def inner_cell(cell: Any) -> Any:
    """Return the cell of an `nnx.RNN`, the parameters of a Linen cell, or else the argument.

    Raises:
      ValueError: a module that does not compute the same as this library's LSTM.
    """
    if isinstance(cell, nnx.RNN):
        if type(cell) is not nnx.RNN:
            raise ValueError(f"this is a {type(cell).__name__}; expected an nnx.RNN, or its cell")
        cell = cell.cell
    if isinstance(cell, linen.Module):
        _check_kind(cell, LINEN_CELLS)
        if cell.scope is None:
            raise ValueError(
                f"this {type(cell).__name__} of Linen has no parameters here; expected arrays: "
                f'the dictionary variables["params"] of the cell'
            )
        return cell.variables["params"]
    if isinstance(cell, nnx.Module):
        _check_kind(cell, CELLS)
        for name, part in vars(cell).items():
            if isinstance(part, nnx.Module):
                _check_linear(f"{name} of this {type(cell).__name__}", part)
    return cell


def _check_kind(cell: Any, kinds: tuple[type, ...]) -> None:
    name = type(cell).__name__
    if type(cell) not in kinds:
        raise ValueError(
            f"this is a {name}; expected an LSTMCell or OptimizedLSTMCell of Flax (if your "
            f"own class computes the same, pass its parameters, such as "
            f"nnx.state(cell, nnx.Param))"
        )
    _check_attributes(f"this {name}", cell)


def _check_linear(name: str, linear: nnx.Module) -> None:
    if type(linear) is not nnx.Linear:
        raise ValueError(f"{name} is a {type(linear).__name__}; expected an nnx.Linear")
    _check_attributes(name, linear)


def _check_attributes(name: str, module: Any) -> None:
    """Raise ValueError for an attribute that changes the outputs and is not the default."""
    for attribute, parameter in inspect.signature(type(module).__init__).parameters.items():
        default = parameter.default
        if attribute in IRRELEVANT or default is parameter.empty:
            continue
        value = getattr(module, attribute, default)
        if value is not default and value not in (default, nnx.initializers.zeros_init()):
            raise ValueError(
                f"{attribute} of {name} is {getattr(value, '__name__', value)}; this LSTM has "
                f"only the default, {getattr(default, '__name__', default)}"
            )


def make_flax_cell(params: LSTMParams, dtype: Any) -> nnx.OptimizedLSTMCell:
    """Return a new cell with these parameters that computes in `dtype`."""
    features, hidden = sizes_of(params)
    cell = nnx.eval_shape(
        lambda: nnx.OptimizedLSTMCell(
            features, hidden, dtype=dtype, param_dtype=params.kernel_ih.dtype, rngs=nnx.Rngs(0)
        )
    )
    return lstm_params_to_flax(params, cell)


def _cell_arrays(cell: Any) -> dict[str, Any]:
    tree = nnx.state(cell, nnx.Param) if isinstance(cell, nnx.Module) else cell
    return {name.replace("if_/", "if/"): value for name, value in named_arrays(tree).items()}


def _side_by_side(params: LSTMParams) -> dict[str, Any]:
    names = "dense_i/kernel", "dense_h/kernel", "dense_h/bias"
    return dict(zip(names, params, strict=True))


def _by_gate(params: LSTMParams) -> dict[str, Any]:
    kernels_ih, kernels_hh, biases = (jnp.split(array, 4, axis=-1) for array in params)
    values = {}
    for i, gate in enumerate("ifgo"):
        values[f"i{gate}/kernel"] = kernels_ih[i]
        values[f"h{gate}/kernel"] = kernels_hh[i]
        values[f"h{gate}/bias"] = biases[i]
    return values | {
        "if_/kernel": values["if/kernel"]
    }  # NNX's name, since `if` is a Python keyword


def _is_fused(found: Mapping[str, Any]) -> bool:
    return any(name.startswith("dense_") for name in found)


def _check_flax_cell(found: Mapping[str, Any], features: int, hidden: int) -> None:
    shapes: dict[str, tuple[int, ...]]
    if _is_fused(found):
        shapes = {"dense_i/kernel": (features, 4 * hidden), "dense_h/kernel": (hidden, 4 * hidden)}
        shapes["dense_h/bias"] = (4 * hidden,)
    else:
        shapes = {f"i{gate}/kernel": (features, hidden) for gate in "ifgo"}
        shapes |= {f"h{gate}/kernel": (hidden, hidden) for gate in "ifgo"}
        shapes |= {f"h{gate}/bias": (hidden,) for gate in "ifgo"}
    check_shapes(found, shapes)
    check_names(found, shapes, "an LSTM cell of Flax")
