"""Reading a text file; if the encoding is wrong, the error names encodings that fit the bytes."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from lstm_optax.checks import check_integer
from lstm_optax.data.encodings import count_utf8_errors, fitting_encodings
from lstm_optax.data.text import TextError

CHUNK = 2**20  # bytes read at once
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # in no extended ASCII text


def read_text(
    path: str | PathLike[str],
    *,
    encoding: str = "utf-8",
    limit: int = 2**30,
    keep_line_ends: bool = False,
) -> str:
    r"""Return the text of a file, without a byte order mark and with "\n" as its only newline.

    The file is read once, so it may be a pipe.

    Args:
      path: a file, a device or a pipe.
      encoding: a text encoding that Python knows.
      limit: the largest number of bytes to read, at least 1; a longer file is an error.
      keep_line_ends: keep the line ends "\r\n" and "\r" as they are.

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
    text = text.removeprefix("\ufeff")
    if not keep_line_ends:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise TextError(f"{path} is empty: name a file with some text")
    return text


def read_pieces(
    path: Path,
    *,
    encoding: str = "utf-8",
    keep_line_ends: bool = False,
    on_chunk: Callable[[bytes], None] = lambda chunk: None,
) -> Iterator[str]:
    """Yield the text that `read_text` returns in pieces of about a million characters.

    Args:
      path, encoding, keep_line_ends: see `read_text`.
      on_chunk: called with each chunk of bytes after it is read.

    Raises:
      TextError: see `read_text`; there is no limit.
    """
    encoding = _check_encoding(encoding)
    wrapped = codecs.getincrementaldecoder(encoding)()
    decoder = io.IncrementalNewlineDecoder(wrapped, translate=not keep_line_ends)
    read, started, blank = 0, False, True
    for chunk in _with_end(read_chunks(path)):
        read += len(chunk)
        try:
            piece = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            data = bytes(error.object)  # the chunk, after the bytes that the decoder held back
            place = read - len(data) + error.start
            problem = f"is not {_display_name(encoding)} (at byte {place})"
            raise _encoding_error(data, False, path, problem) from None
        except UnicodeError:
            problem = f"is not {_display_name(encoding)}"
            raise _encoding_error(chunk, False, path, problem) from None
        if "\0" in piece:
            place = read - len(chunk) + chunk.find(0)
            raise _encoding_error(chunk, False, path, f"is binary (NUL at byte {place})")
        on_chunk(chunk)
        if not started and piece:
            started, piece = True, piece.removeprefix("\ufeff")
        if piece:
            blank = blank and not piece.strip()
            yield piece
    if blank:
        raise TextError(f"{path} is empty: name a file with some text")


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks; raise TextError if it cannot be read."""
    try:
        if path.is_dir():
            raise TextError(f"{path} is a folder: name one text file in it")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise TextError(f"{path} does not exist: check the name and the folder") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TextError(f"{path} cannot be read ({reason}): check its permissions") from None


def _with_end(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks and, after the last, an empty one."""
    yield from chunks
    yield b""


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
    for chunk in read_chunks(path):
        data += chunk
        if len(data) > limit:
            raise TextError(
                f"{path} holds more than {limit:,} bytes, the limit: use a part of it, for "
                "example with head -c, or make it a token file with lstm-optax prepare"
            )
        if not may_have_nul and len(data) == len(chunk) and b"\0" in chunk:
            return bytes(data), len(chunk) < CHUNK
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
        count = count if whole else f"at least {count}"
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
