"""The native library: loads it once, and registers its calls with XLA."""

import ctypes
import functools
import os
from pathlib import Path

import jax

from lstm_optax.lstm.native.build import LIBRARY

CALLS = ("forward", "backward", "input_gradient", "weight_gradient")
OFF = "LSTM_OPTAX_NATIVE"
"""Environment variable: 0 switches the library off, at installation and when a program starts."""


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library and register its calls as lstm_optax_CALL.

    Raises:
      OSError: there is no library, or it does not load; with a message for users.
    """
    if os.environ.get(OFF) == "0":
        raise OSError(f"the environment variable {OFF} is 0")
    path = Path(__file__).with_name(LIBRARY)
    if not path.exists():
        raise OSError(
            "lstm_optax was installed without its native library: no C++ compiler was found then, "
            "or the platform is not Linux. Install a compiler, then lstm_optax again"
        )
    library = ctypes.CDLL(str(path))
    library.lstm_optax_instructions.restype = ctypes.c_char_p
    library.lstm_optax_use.restype = ctypes.c_bool
    for call in CALLS:
        name = f"lstm_optax_{call}"
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return library


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


def use(name: str) -> None:
    """Use these instructions from now on, for tests and measurements.

    Raises:
      ValueError: the library has none of this name, or this CPU does not.
    """
    if not load().lstm_optax_use(name.encode()):
        raise ValueError(f"no instructions {name!r} on this CPU")
