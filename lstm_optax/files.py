"""Files and tensors of other libraries as NumPy arrays; what is read is data, never code."""

import os
import zipfile
from importlib import import_module
from typing import Any, BinaryIO

import jax.numpy as jnp

__all__ = ["read_torch"]

_SAFE_SINCE = (2, 6)  # before, `weights_only` could be made to run code: CVE-2025-32434


def read_torch(path: str | os.PathLike) -> Any:
    """Read what `torch.save` wrote, such as state dicts: tensors become NumPy arrays.

    It is read by PyTorch's loader of weights, which knows tensors, numbers, strings and the
    containers of them, and refuses all else: nothing in the file is run. Of a subclass of `dict`
    comes a `dict`, in the same order.

    Args:
      path: the file.

    Raises:
      ImportError: PyTorch is missing, or older than 2.6.
      OSError: the file cannot be opened.
      ValueError: the file holds something else, or is damaged.

    Reference: `torch.load`, PyTorch 2.13, with `weights_only=True`.
    """
    torch = _torch()
    with open(path, "rb") as file:  # what cannot be opened is an OSError here, and nothing else is
        _check_sums(file, path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes the loader raise is of many kinds
        raise ValueError(
            f"{path} is refused: it is damaged, or holds more than tensors, numbers and strings; "
            f"save the `state_dict()` of the model and of the optimizer alone"
        ) from error
    return _plain(content, str(path))


def _check_sums(file: BinaryIO, path: str | os.PathLike) -> None:
    """Raise ValueError where a part of the archive differs from its sum, which PyTorch ignores."""
    if not zipfile.is_zipfile(file):
        return  # of PyTorch before 1.6, or none of its files
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise ValueError(f"{path} is refused: it is damaged ({type(error).__name__})") from error
    if damaged is not None:
        raise ValueError(f"{path} is refused: it is damaged, in {damaged}")


def as_numpy(x: Any) -> Any:
    """Return a tensor of PyTorch as a NumPy array, and anything else as it is.

    The array is a copy: PyTorch changes its tensors in place, and JAX may share an array's memory.
    """
    if not hasattr(x, "detach"):
        return x
    x = x.detach().cpu()
    if str(x.dtype) == "torch.bfloat16":  # which PyTorch cannot give to NumPy; float32 holds it
        return x.float().numpy().astype(jnp.bfloat16)
    return x.numpy().copy()


def _torch() -> Any:
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise ImportError(
            "PyTorch is needed to read its files: pip install 'lstm_optax[parity]'"
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_SINCE:
        raise ImportError(
            f"PyTorch {torch.__version__} may run code from a file that it reads; "
            f"2.6 or later does not: pip install 'lstm_optax[parity]'"
        )
    return torch


def _plain(x: Any, where: str) -> Any:
    if isinstance(x, dict):
        return {key: _plain(value, f"{where}[{key!r}]") for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)([_plain(value, f"{where}[{i}]") for i, value in enumerate(x)])
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    kind = type(x).__name__
    if hasattr(x, "detach"):
        try:
            return as_numpy(x)
        except (TypeError, RuntimeError):  # it is sparse, or of a dtype that NumPy has not
            kind = f"a tensor of {x.dtype}, {x.layout}"
    raise ValueError(f"{where} is {kind}; expected dense tensors, numbers and strings")
