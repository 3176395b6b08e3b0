"""Reading a text file; if the encoding is wrong, the error names encodings that fit the bytes."""

from __future__ import annotations

import codecs
import re
from os import PathLike
from pathlib import Path

from lstm_optax.checks import check_integer
from lstm_optax.data.encodings import count_utf8_errors, fitting_encodings
from lstm_optax.data.text import TextError

CHUNK = 2**20  # bytes read at once
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # in no extended ASCII text


def read_text(path: str | PathLike[str], *, encoding: str = "utf-8", limit: int = 2**30) -> str:
    r"""Return the text of a file, without a byte order mark and with "\n" as its only newline.

    The file is read once, so it may be a pipe.

    Args:
      path: a file, a device or a pipe.
      encoding: a text encoding that Python knows.
      limit: the largest number of bytes to read, at least 1; a longer file is an error.

    Raises:
      TextError: the file is missing, a folder, unreadable, longer than the limit, binary, empty, or
        in another encoding; or Python has no such encoding. If the bytes fit other encodings, the
        error names them.
      ValueError: a limit below 1.
    """
    encoding = _check_encoding(encoding)
    limit = check_integer("limit", limit)
    data, complete = _read_bytes(Path(path), limit, may_have_nul=encoding != "utf-8")
    text = _decode_text(data, complete, path, encoding)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise TextError(f"{path} is empty: name a file with some text")
    return text


def _check_encoding(name: str) -> str:
    """Return Python's own name of a text encoding; raise TextError if there is none."""
    try:
        codec = codecs.lookup(name)
        "a".encode(codec.name)  # raises for codecs that are not text encodings
        return codec.name
    except (LookupError, UnicodeError, ValueError):
        raise TextError(
            f"`encoding` is {name!r}, but Python knows no such text encoding: use one of its "
            "names, such as utf-8, utf-16, cp1252 or gb18030"
        ) from None


def _read_bytes(path: Path, limit: int, *, may_have_nul: bool) -> tuple[bytes, bool]:
    """Return the bytes of a file, and whether they are complete.

    Reading stops after the first chunk if that has a NUL, so an endless binary file such as
    /dev/zero is rejected at once; any other endless file is rejected at the limit.
    """
    data = bytearray()
    try:
        if path.is_dir():
            raise TextError(f"{path} is a folder: name one text file in it")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                data += chunk
                if len(data) > limit:
                    raise TextError(
                        f"{path} holds more than {limit:,} bytes, the limit: use a part of it, for "
                        "example with head -c"
                    )
                if not may_have_nul and len(data) == len(chunk) and b"\0" in chunk:
                    return bytes(data), len(chunk) < CHUNK
    except FileNotFoundError:
        raise TextError(f"{path} does not exist: check the name and the folder") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TextError(f"{path} cannot be read ({reason}): check its permissions") from None
    return bytes(data), True


def _decode_text(data: bytes, whole: bool, path: str | PathLike[str], encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        place = f" (at byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        problem = f"is not {_display_name(encoding)}{place}"
        raise _encoding_error(data, whole, path, problem) from None
    nul = text.find("\0")
    if nul >= 0:
        raise _encoding_error(data, whole, path, f"is binary (NUL at byte {data.find(0)})")
    return text


def _encoding_error(data: bytes, whole: bool, path: str | PathLike[str], problem: str) -> TextError:
    errors, characters = count_utf8_errors(data)
    if b"\0" not in data and characters > 4 * errors > 0:
        count = "1 byte" if errors == 1 else f"{errors:,} bytes"
        return TextError(
            f"{path} {problem}; it is UTF-8 except for {count}: replace it with an undamaged copy, "
            "or drop such bytes with iconv -c -f UTF-8 -t UTF-8 OLD > NEW"
        )
    if characters and not errors and b"\0" not in data:
        return TextError(f"{path} {problem}; it is UTF-8: pass `encoding='utf-8'`")
    fitting = fitting_encodings(data, whole=whole)
    if not fitting and not CONTROL.search(data):
        return TextError(
            f"{path} {problem}, and its encoding is not recognised: pass Python's name for it as "
            "`encoding`, or use a plain text file"
        )
    if not fitting:
        return TextError(f"{path} {problem}, not text: name a plain text file")
    samples = ", ".join(f"{name} ({sample!r})" for name, sample in fitting.items())
    return TextError(
        f"{path} {problem}; its bytes fit {samples}: pass the encoding whose sample reads right, "
        f"such as `encoding={next(iter(fitting))!r}`"
    )


def _display_name(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding
