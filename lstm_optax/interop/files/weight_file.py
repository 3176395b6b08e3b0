"""Weights by name in files that every framework reads: safetensors and NPZ."""

import os
import reprlib
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lstm_optax.interop.files.numpy_values import as_numpy

MOST_NAME = 60_000  # bytes; those of ZIP have 16 bits for it
_NUMBERS = {"bool", "float16", "float32", "float64", "complex64"}
_NUMBERS |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_HELD = {  # names of dtypes, by format
    ".safetensors": _NUMBERS | {"bfloat16", "float8_e4m3fn", "float8_e5m2"},
    ".npz": _NUMBERS | {"complex128"},
}


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Write arrays by name to a file, which is replaced whole or not at all.

    Args:
      path: a file that ends in `.safetensors` or `.npz`, which says the format.
      weights: arrays or tensors by name, such as `module_to_torch` returns.

    Raises:
      ImportError: the extra `safetensors` is missing.
      OSError: the file cannot be written.
      ValueError: another ending, a name that is no string or too long, or an array that the format
        does not hold: NPZ has no bfloat16.
    """
    suffix, arrays = _suffix(path), {}
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights is a {type(weights).__name__}; expected arrays by name")
    for name, value in weights.items():
        if not _is_name(name):
            raise ValueError(
                f"a name is {reprlib.repr(name)}, which files do not hold; expected a string of 1 "
                f"to {MOST_NAME:,} bytes in UTF-8 without NUL, and not '__metadata__'"
            )
        arrays[name] = np.asarray(as_numpy(value), order="C")
        dtype = arrays[name].dtype
        if dtype.name not in _HELD[suffix]:
            raise ValueError(
                f"{name!r} is of {dtype}, which {suffix} files do not hold; save the weights as "
                "float32, or bfloat16 in a .safetensors file"
            )
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        (_write_npz if suffix == ".npz" else _write_safetensors)(partial, arrays)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read arrays by name from a file of `save_weights`, PyTorch's safetensors or `numpy.savez`.

    Args:
      path: a file that ends in `.safetensors` or `.npz`.

    Raises:
      ImportError: the extra `safetensors` is missing.
      OSError: the file cannot be opened.
      ValueError: another ending, or the file is damaged or holds something else than numbers.
    """
    read = _read_npz if _suffix(path) == ".npz" else _read_safetensors
    with open(path, "rb"):  # what cannot be opened is an OSError here, and nothing else is
        pass
    try:
        return read(path)
    except ImportError:
        raise
    except Exception as error:  # what a damaged file makes a reader raise is of many kinds
        raise ValueError(
            f"{path} is refused: it is damaged, or holds more than arrays of numbers "
            f"({type(error).__name__}: {error})"
        ) from error


def _is_name(name: Any) -> bool:
    """Return whether both formats give a name back."""
    try:
        size = len(name.encode())
    except (AttributeError, UnicodeEncodeError):
        return False
    return 0 < size <= MOST_NAME and "\0" not in name and name != "__metadata__"


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in _HELD:
        raise ValueError(f"{path} ends in {suffix!r}; expected one of {', '.join(_HELD)}")
    return suffix


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # `numpy.savez` has no place for the name "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the sum of {damaged}")
        arrays = {}
        for member in archive.namelist():  # `numpy.load` confuses "a" with "a.npy"
            with archive.open(member) as file:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(file)
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise ValueError(f"{name!r} is of {array.dtype}")
    return arrays


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(_safetensors().save(dict(arrays), metadata={"format": "pt"}))


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in _safetensors().load_file(path).items()}


def _safetensors() -> Any:
    try:
        return import_module("safetensors.numpy")
    except ImportError as error:
        raise ImportError(
            "safetensors is needed for its files: pip install 'lstm_optax[safetensors]'"
        ) from error
