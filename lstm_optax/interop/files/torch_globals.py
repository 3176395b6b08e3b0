"""The objects that PyTorch's files hold next to tensors, and how each is made from its record."""

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
"""From the arguments and the state in a file to the object."""


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
    if not isinstance(items, list):  # such as a range, which may be of any length
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
"""No call here acts outside: a path is made as a pure one, which knows no file system."""

_CONTAINERS = {  # which the loader fills
    "collections.defaultdict": lambda factory=None: {},
    "collections.deque": lambda items=(), maxlen=None: list(items),
    "builtins.bytes": lambda: b"",  # other bytes are made by `_codecs.encode`
}
_ARGUMENTS = ("numpy.ndarray",)  # of `_reconstruct`


def allow_list(others: Iterable[str]) -> list[Any]:
    """Return what `torch.serialization.safe_globals` takes: stand-ins, by the names in a file.

    The loader makes records of the objects, or plain containers, and imports nothing. `others` are
    names of which it makes records too.
    """
    stand_ins = {name: held(name) for name in (*HARMLESS, *_ARGUMENTS, *others)} | _CONTAINERS
    return [(stand_in, name) for name, stand_in in stand_ins.items()]


def is_harmless(name: str) -> bool:
    """Return whether the allow-list has that name."""
    return name in HARMLESS or name in _CONTAINERS or name in _ARGUMENTS
