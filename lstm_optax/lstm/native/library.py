"""The native library: loads it once, and registers its calls with XLA."""

import ctypes
import functools
import os
from pathlib import Path

import jax

from lstm_optax.lstm.native.build import LIBRARY, REASON, fingerprint

HERE = Path(__file__).parent
CALLS = ("forward", "backward", "input_gradient", "weight_gradient")
OFF = "LSTM_OPTAX_NATIVE"
"""Environment variable: 0 switches the library off, at installation and when a program starts."""
_REMEDY = "`python -m lstm_optax.lstm.native.build` compiles it"


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library and register its calls as lstm_optax_CALL.

    Raises:
      OSError: there is no library, or it does not load; with a message for users.
    """
    if os.environ.get(OFF) == "0":
        raise OSError(f"the environment variable {OFF} is 0")
    if not (HERE / LIBRARY).exists():
        raise OSError(f"there is no native library: {_reason()}. {_REMEDY}")
    library = ctypes.CDLL(str(HERE / LIBRARY))
    _check_sources(library)
    library.lstm_optax_instructions.restype = ctypes.c_char_p
    library.lstm_optax_bfloat16.restype = ctypes.c_bool
    library.lstm_optax_use.restype = ctypes.c_bool
    for call in CALLS:
        name = f"lstm_optax_{call}"
        handler = jax.ffi.pycapsule(getattr(library, name))
        try:
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
        except jax.errors.JaxRuntimeError as error:
            raise OSError(f"JAX refuses the native library: {error}. {_REMEDY} again") from error
    return library


def _reason() -> str:
    """Return why the installation left the library out."""
    note = HERE / REASON
    return note.read_text(encoding="utf-8").strip() if note.exists() else "it was not compiled"


def _check_sources(library: ctypes.CDLL) -> None:
    """Refuse a library that was compiled from other sources: its calls may differ."""
    sources = getattr(library, "lstm_optax_sources", None)
    if sources is not None:
        sources.restype = ctypes.c_char_p
    if sources is None or sources().decode() != fingerprint():
        raise OSError(f"the native library was compiled from other sources. {_REMEDY} again")


@functools.cache
def missing() -> str | None:
    """Return the reason why this process cannot use the library, or None if it can."""
    try:
        load()
    except OSError as error:
        return str(error)
    return None


def instructions() -> str:
    """Return the instructions in use: avx512, avx2, baseline or neon."""
    return load().lstm_optax_instructions().decode()


def multiplies_in_bfloat16() -> bool:
    """Return whether the instructions in use include products of bfloat16."""
    return load().lstm_optax_bfloat16()


def use(name: str) -> None:
    """Use these instructions from now on, for tests and measurements.

    Raises:
      ValueError: the library has none of this name, or this CPU does not.
    """
    if not load().lstm_optax_use(name.encode()):
        raise ValueError(f"no instructions {name!r} on this CPU")
