"""Checks of the shapes, dtypes and lengths of an LSTM call."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.cell import LSTMParams, LSTMState

_AXES = {1: "one axis", 2: "two axes", 3: "three axes"}


def check_axes(name: str, shape: tuple[Any, ...], axes: Sequence[str]) -> None:
    """Raise ValueError unless the shape has these axes."""
    if len(shape) != len(axes):
        raise ValueError(
            f"{name} has shape {shape}; expected {_AXES[len(axes)]}: {', '.join(axes)}"
        )


def check_features(x: Any, axes: Sequence[str], features: int) -> None:
    """Raise ValueError unless x has these axes, the last with this size."""
    check_axes("x", x.shape, axes)
    if x.shape[-1] != features:
        raise ValueError(
            f"x has {x.shape[-1]} features, but the layer takes {features}: "
            f"{_describe_layout('x', x, axes)}"
        )


def check_rows(
    name: str,
    x: Any,
    axes: Sequence[str],
    hidden: int,
    states: int,
    *,
    carry: Any = None,
    seq_lengths: Any = None,
    resets: Any = None,
    detach: Any = None,
) -> None:
    """Raise ValueError unless the other arguments of a layer call have the shapes of its input.

    Args:
      name: name of the input in the caller's signature.
      x: the input.
      axes: names of its first axes, such as ("time", "batch").
      hidden: hidden units of the layer.
      states: number of states in the carry, one for each layer and direction.
    """
    sizes = dict(zip(axes, x.shape, strict=False))
    batch, rows, layout = sizes["batch"], x.shape[: len(axes)], _describe_layout(name, x, axes)
    for i, state in enumerate(() if carry is None else _check_states(carry, states)):
        for part, value in state._asdict().items():
            expected = (batch, hidden)
            _check_shape(f"carry[{i}].{part}", value, expected, f"batch by hidden; {layout}")
            _check_real(f"carry[{i}].{part}", value)
    if seq_lengths is not None:
        _check_shape("seq_lengths", seq_lengths, (batch,), f"batch; {layout}")
    if resets is not None:
        _check_shape("resets", resets, rows, f"laid out as {name}; {layout}")
        _check_real("resets", resets)
    if detach is not None and np.shape(detach) != (sizes["time"],):
        meaning = f"laid out as {name}, or {(sizes['time'],)} for all rows; {layout}"
        _check_shape("detach", detach, rows, meaning)
    if detach is not None:
        _check_real("detach", detach)


def check_probe(probe: Any, count: int) -> Sequence[GradientFlow | None]:
    """Return one flow for each layer and direction, all None if `probe` is None."""
    if probe is None:
        return (None,) * count
    if isinstance(probe, GradientFlow) or len(probe) != count:
        raise ValueError(
            f"probe has {len(probe)} parts; expected a tuple of {count} GradientFlow, one "
            f"for each layer and direction"
        )
    return probe


def check_sequence(params: Any, x: Any, carry: Any, seq_lengths: Any, resets: Any) -> int:
    """Return the number of hidden units, or raise ValueError for shapes that do not match."""
    for name, value, kind in (("params", params, LSTMParams), ("carry", carry, LSTMState)):
        if not isinstance(value, kind) and not (name == "carry" and value is None):
            raise ValueError(f"{name} is a {_describe_type(value)}; expected an {kind.__name__}")
    check_axes("x", x.shape, ("time", "batch", "features"))
    check_axes("kernel_ih", params.kernel_ih.shape, ("features", "4 hidden"))
    check_axes("kernel_hh", params.kernel_hh.shape, ("hidden", "4 hidden"))
    (time, batch, features), (expected, _) = x.shape, params.kernel_ih.shape
    hidden = params.kernel_hh.shape[0]
    _check_shape("kernel_hh", params.kernel_hh, (hidden, 4 * hidden), "hidden by 4 hidden")
    _check_shape("kernel_ih", params.kernel_ih, (expected, 4 * hidden), "features by 4 hidden")
    _check_shape("bias", params.bias, (4 * hidden,), "4 hidden")
    if features != expected:
        raise ValueError(
            f"x has {features} features, but kernel_ih, of shape {params.kernel_ih.shape}, takes "
            f"{expected}: {_describe_layout('x', x, ('time', 'batch', 'features'))}"
        )
    if carry is not None:
        for part, value in carry._asdict().items():
            _check_shape(f"carry.{part}", value, (batch, hidden), "batch by hidden")
            _check_real(f"carry.{part}", value)
    if seq_lengths is not None:
        _check_shape("seq_lengths", seq_lengths, (batch,), "batch")
    if resets is not None:
        _check_shape("resets", resets, (time, batch), "time by batch")
        _check_real("resets", resets)
    return hidden


def check_flow(time: int, batch: int, detach: Any, probe: Any) -> None:
    """Raise ValueError unless `detach` and `probe` have the shapes of the sequence."""
    if detach is not None and jnp.shape(detach) not in ((time,), (time, batch)):
        raise ValueError(
            f"detach has shape {jnp.shape(detach)}; expected {(time,)} or {(time, batch)}: time, "
            f"or time by batch"
        )
    if detach is not None:
        _check_real("detach", detach)
    if probe is None:
        return
    if not isinstance(probe, GradientFlow):
        raise ValueError(f"probe is a {type(probe).__name__}; expected a GradientFlow")
    for name, slot in probe._asdict().items():
        expected = (time, batch) if name in ("h", "c") else (time, batch, 4)
        _check_shape(f"probe.{name}", slot, expected, "time by batch, and gates")


def check_dtypes(params: LSTMParams, x: Any, dtype: Any) -> None:
    """Raise ValueError unless parameters and products have float dtypes, and x a real one."""
    dtypes = {name: value.dtype for name, value in params._asdict().items()} | {"dtype": dtype}
    for name, found in dtypes.items():
        check_floats(name, found)
    _check_real("x", x)


def check_floats(name: str, dtype: Any) -> None:
    """Raise ValueError unless a dtype is a float of 16 bits or more."""
    try:
        wide = jnp.promote_types(dtype, jnp.float32)  # fails for smaller floats
    except (TypeError, ValueError):
        wide = None
    if wide is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} is {dtype}; expected floats, such as float32 or bfloat16")


def checked_lengths(time: int, seq_lengths: Any) -> jax.Array | None:
    """Return lengths as an array; ValueError unless integers and, if known, in [0, time]."""
    if seq_lengths is None:
        return None
    lengths = jnp.asarray(seq_lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"seq_lengths is {lengths.dtype}; expected integers, one for each row")
    values = known(seq_lengths)
    if values is not None and values.size:
        least, most = values.min(), values.max()
        if least < 0 or most > time:
            raise ValueError(
                f"seq_lengths are between {least} and {most}; expected 0 to {time}, the steps of x"
            )
    return lengths


def known(values: Any) -> np.ndarray | None:
    """Return the values as NumPy, or None if they are traced or on other hosts."""
    if isinstance(values, Tracer) or not getattr(values, "is_fully_addressable", True):
        return None
    return np.asarray(values)


def _check_states(carry: Any, count: int) -> tuple[LSTMState, ...]:
    states = isinstance(carry, tuple) and all(isinstance(s, LSTMState) for s in carry)
    if isinstance(carry, LSTMState) or not states or len(carry) != count:
        raise ValueError(
            f"carry is a {_describe_type(carry)}; expected a tuple of {count} LSTMState, one for "
            f"each layer and direction, such as from `initial_carry`"
        )
    return carry


def _describe_layout(name: str, x: Any, axes: Sequence[str]) -> str:
    more = len(x.shape) - len(axes)
    return f"{name}, of shape {x.shape}, is read as [{', '.join([*axes, *['features'] * more])}]"


def _describe_type(value: Any) -> str:
    parts = len(value) if isinstance(value, tuple | list) else None
    return type(value).__name__ + (f" of {parts}" if parts is not None else "")


def _check_real(name: str, values: Any) -> None:
    dtype = values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise ValueError(f"{name} is {dtype}; expected floats, integers or bools")


def _check_shape(name: str, value: Any, expected: tuple, meaning: str) -> None:
    if np.shape(value) != expected:
        raise ValueError(f"{name} has shape {np.shape(value)}; expected {expected}: {meaning}")
