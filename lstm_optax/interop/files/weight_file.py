"""Weights by name in files that all frameworks read: safetensors and NPZ."""

import os
import reprlib
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lstm_optax.interop.files.numpy_values import as_numpy

_MAX_NAME = 60_000  # bytes; ZIP stores the length in 16 bits
_DTYPES = {"bool", "float16", "float32", "float64", "complex64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_FORMAT_DTYPES = {  # by file ending
    ".safetensors": _DTYPES | {"bfloat16", "float8_e4m3fn", "float8_e5m2"},
    ".npz": _DTYPES | {"complex128"},
}


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Write arrays by name to a file; the file is replaced atomically.

    Args:
      path: a file name that ends in `.safetensors` or `.npz`, which selects the format.
      weights: arrays or tensors by name, such as `module_to_torch` returns.

    Raises:
      ImportError: the extra `safetensors` is missing.
      OSError: the file cannot be written.
      ValueError: another ending, a name that is not a string or too long, or a dtype that the
        format does not support: NPZ has no bfloat16.
    """
    suffix, arrays = _check_suffix(path), {}
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights is a {type(weights).__name__}; expected arrays by name")
    for name, value in weights.items():
        if not _is_valid_name(name):
            raise ValueError(
                f"a name is {reprlib.repr(name)}, which files do not support; expected a string of "
                f"1 to {_MAX_NAME:,} bytes in UTF-8 without NUL, and not '__metadata__'"
            )
        arrays[name] = np.asarray(as_numpy(value), order="C")
        dtype = arrays[name].dtype
        if dtype.name not in _FORMAT_DTYPES[suffix]:
            raise ValueError(
                f"{name!r} is of {dtype}, which {suffix} files do not support; save the weights as "
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
      path: a file name that ends in `.safetensors` or `.npz`.

    Raises:
      ImportError: the extra `safetensors` is missing.
      OSError: the file cannot be opened.
      ValueError: another ending, or the file is damaged or contains more than numbers.
    """
    read = _read_npz if _check_suffix(path) == ".npz" else _read_safetensors
    with open(path, "rb"):  # only opening it may raise an OSError
        pass
    try:
        return read(path)
    except ImportError:
        raise
    except Exception as error:  # readers raise many types for damaged files
        raise ValueError(
            f"{path} is refused: it is damaged, or contains more than arrays of numbers "
            f"({type(error).__name__}: {error})"
        ) from error


def _is_valid_name(name: Any) -> bool:
    """Return whether both formats can store the name."""
    try:
        size = len(name.encode())
    except (AttributeError, UnicodeEncodeError):
        return False
    return 0 < size <= _MAX_NAME and "\0" not in name and name != "__metadata__"


def _check_suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in _FORMAT_DTYPES:
        raise ValueError(f"{path} ends in {suffix!r}; expected one of {', '.join(_FORMAT_DTYPES)}")
    return suffix


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # `numpy.savez` cannot store the name "file"
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
        arrays = {}
        for member in archive.namelist():  # `numpy.load` confuses "a" with "a.npy"
            with archive.open(member) as file:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(file)
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise ValueError(f"{name!r} is of {array.dtype}")
    return arrays


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(_import_safetensors().save(dict(arrays), metadata={"format": "pt"}))


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in _import_safetensors().load_file(path).items()}


def _import_safetensors() -> Any:
    try:
        return import_module("safetensors.numpy")
    except ImportError as error:
        raise ImportError(
            "safetensors is needed for its files: pip install 'lstm_optax[safetensors]'"
        ) from error
