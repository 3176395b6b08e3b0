"""Objects other than tensors in PyTorch's files, and functions that make them from records."""

import argparse
import datetime
import math
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from lstm_optax.interop.files.pickle_records import held

Make = Callable[[list[Any], Any], Any]
"""(arguments, state) from a file → the object."""


def _dtype(args: list[Any], state: Any) -> np.dtype:
    spec, order = args[0], state[1] if state else "="
    if not (isinstance(spec, str) and re.fullmatch(r"[biufc]\d+", spec)):
        raise ValueError(f"its dtype is {spec!r}, and only numbers are read")
    return np.dtype(spec).newbyteorder(order)


def _array(args: list[Any], state: Any) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it has {len(data)} bytes for the shape {shape} of {dtype}")
    flat = np.frombuffer(bytearray(data), dtype).astype(dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _scalar(args: list[Any], state: Any) -> Any:
    dtype, data = args
    return _array([], (1, (), dtype, False, data))[()]


def _frozenset(args: list[Any], state: Any) -> frozenset:
    (items,) = args
    if not isinstance(items, list):  # a range may have any length
        raise ValueError(f"its items are a {type(items).__name__}")
    return frozenset(items)


def _called(kind: Callable[..., Any]) -> Make:
    return lambda args, state: kind(*args)


def _with_attributes(kind: Callable[..., Any]) -> Make:
    return lambda args, state: kind(**(state or {}))


HARMLESS: Mapping[str, Make] = {
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{
        f"{module}.{pure}{system}Path": _called(getattr(pathlib, f"Pure{system}Path"))
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    },
    **{
        f"datetime.{kind}": _called(getattr(datetime, kind))
        for kind in ("date", "datetime", "time", "timedelta", "timezone")
    },
    "argparse.Namespace": _with_attributes(argparse.Namespace),
    "types.SimpleNamespace": _with_attributes(types.SimpleNamespace),
    "builtins.frozenset": _frozenset,
    "builtins.range": _called(range),
}
"""No call here has side effects: paths are made as pure paths, without file system access."""

_CONTAINERS = {  # filled by the loader
    "collections.defaultdict": lambda factory=None: {},
    "collections.deque": lambda items=(), maxlen=None: list(items),
    "builtins.bytes": lambda: b"",  # nonempty bytes are made by `_codecs.encode`
}
_ARGUMENTS = ("numpy.ndarray",)  # arguments of `_reconstruct`


def allow_list(others: Iterable[str]) -> list[Any]:
    """Return stand-in classes with their names in a file, for `torch.serialization.safe_globals`.

    With them the loader makes records or plain containers, and imports nothing. `others` are
    further names to make records of.
    """
    stand_ins = {name: held(name) for name in (*HARMLESS, *_ARGUMENTS, *others)} | _CONTAINERS
    return [(stand_in, name) for name, stand_in in stand_ins.items()]


def is_harmless(name: str) -> bool:
    """Return whether the allow-list contains the name."""
    return name in HARMLESS or name in _CONTAINERS or name in _ARGUMENTS
