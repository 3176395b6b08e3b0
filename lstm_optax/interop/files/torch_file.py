"""Files of PyTorch, read as data without running code."""

import io
import os
import re
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from lstm_optax.interop.files.numpy_values import Plain
from lstm_optax.interop.files.pickle_records import Held, NotRead, check_held, read_held
from lstm_optax.interop.files.torch_globals import allow_list, is_harmless

_SAFE_SINCE = (2, 6)  # older: `weights_only` may run code, CVE-2025-32434
_OF_TORCH = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|bytearray|complex)|_codecs\.encode|"
    r"torch\.(Size|device)|torch(\.storage)?\.\w+Storage|torch\.nn\.parameter\.Parameter|"
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|sparse_tensor|qtensor|"
    r"meta_tensor_no_storage|parameter|parameter_with_state)|torch\._tensor\._rebuild_from_type_v2|"
    r"torch\.serialization\._get_layout"
)
"""Objects that PyTorch's loader makes by itself, except those that copy a tensor while loading."""


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Read a file of `torch.save`, such as a state dict, with tensors as NumPy arrays.

    PyTorch's loader of weights reads the file, and no code in it is run. In addition to tensors, a
    file may contain numbers (also NumPy's), strings, bytes, paths, dates, ranges, namespaces, and
    containers of these. A subclass of `dict` becomes a `dict` in the same order, a `deque` a list,
    a path a `PurePath`, a dtype or device of PyTorch its name. A tensor under several keys is one
    array.

    Args:
      path: the file.

    Raises:
      ImportError: PyTorch is missing, or older than 2.6.
      OSError: the file cannot be opened.
      ValueError: the file contains another object, which the message names with its type and key;
        views of tensors that would have more than four times the bytes of the file; or it is
        damaged.

    Reference: `torch.load`, PyTorch 2.13, with `weights_only=True`.
    """
    torch = _import_torch()
    with open(path, "rb") as file:  # only opening it may raise an OSError
        try:
            return _read(torch, file, Path(path).name)
        except NotRead as error:
            raise ValueError(f"{path} is refused: {error}") from error
        except Exception as error:  # loaders raise many types for damaged files
            reason = f"{type(error).__name__}: {_reason(error)}"
            raise ValueError(
                f"{path} is refused: it is damaged, or not a file of `torch.save` ({reason})"
            ) from error


def _read(torch: Any, file: BinaryIO, name: str) -> Any:
    max_bytes = 4 * os.fstat(file.fileno()).st_size + 2**20
    pickles = _read_archive(file, max_bytes) if zipfile.is_zipfile(file) else _read_legacy(file)
    objects = _AcceptedObjects(torch)
    for tree in pickles:
        check_held(tree, name, objects.accepts)
    file.seek(0)
    with torch.serialization.safe_globals(allow_list(objects.factories)):
        content = torch.load(file, map_location="cpu", weights_only=True)
    return Plain(torch, max_bytes)(content, name)


def _read_archive(file: BinaryIO, max_bytes: int) -> list[Any]:
    """Return the objects of an archive; check its checksums, which PyTorch ignores."""
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > max_bytes:
            raise ValueError(f"its members have more than {max_bytes:,} bytes")
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
        names = [member for member in archive.namelist() if member.endswith("data.pkl")]
        return [read_held(io.BytesIO(archive.read(member))) for member in names]


def _read_legacy(file: BinaryIO) -> list[Any]:
    """Return the objects of a file before PyTorch 1.6: magic number, version, system, content."""
    file.seek(0)
    return [read_held(file) for _ in range(4)]


class _AcceptedObjects:
    """Rules for the objects of a file that may be made."""

    def __init__(self, torch: Any):
        self._dtypes = {str(x) for x in vars(torch).values() if isinstance(x, torch.dtype)}
        self.factories: set[str] = set()  # default factories, which are left out

    def accepts(self, kind: type[Held], x: Any) -> bool:
        if kind.name == "collections.defaultdict" and x is not None:
            self.factories |= {arg.name for arg in x.args if isinstance(arg, type)}
            x.args = tuple(arg for arg in x.args if not isinstance(arg, type))
        if is_harmless(kind.name) or kind.name in self._dtypes:
            return True
        if not _OF_TORCH.fullmatch(kind.name):
            return False
        return x is None or kind.name.startswith("torch") or all(map(_is_bounded, x.args))


def _is_bounded(arg: Any) -> bool:
    """Return whether an argument cannot allocate more memory than the file has bytes."""
    encoded = isinstance(arg, Held) and arg.name == "_codecs.encode"
    return encoded or isinstance(arg, (list, dict, str, bytes, float))


def _reason(error: Exception) -> str:
    """Return the reason in an error of PyTorch, without its advice to allow running code."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return text.split("\n")[0].split(". Please use")[0][:300]


def _import_torch() -> Any:
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise ImportError(
            "PyTorch is needed to read its files: pip install 'lstm_optax[parity]'"
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_SINCE:
        raise ImportError(
            f"PyTorch {torch.__version__} may run code from a file that it reads; "
            f"install 2.6 or later: pip install 'lstm_optax[parity]'"
        )
    return torch
