"""Text files that are read several times, in pieces and with progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstm_optax.data.subwords import line_pieces
from lstm_optax.data.text import TextError
from lstm_optax.data.text_file import read_chunks, read_pieces
from lstm_optax.data.tokens import LONGEST, Kind, word_pieces

Progress = Callable[[str, int, int], None]
"""(what is done, bytes that are read, bytes in total)."""


@dataclass
class Source:
    """A text file, with what the last complete reading found.

    Attributes:
      path: the file.
      part: of the text, "train", "valid" or "test".
      size: number of its bytes.
      sha256: of its bytes.
      tokens: number of its tokens.

    Raises:
      TextError: the file is missing, or is a folder or a pipe.
    """

    path: Path
    part: str
    size: int = field(init=False)
    sha256: str = ""
    tokens: int = 0

    def __post_init__(self) -> None:
        if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
            raise TextError(
                f"{self.path} is a pipe or a device, but is read more than once: save it as a file"
            )
        if not self.path.is_file():
            next(read_chunks(self.path), None)  # raises the error of a missing file or a folder
        self._state = self._read_state()
        self.size = self._state[0]

    def check_unchanged(self) -> None:
        """Raise TextError if the file has changed since the source was made."""
        if self._read_state() != self._state:
            raise TextError(f"{self.path} was changed while it was read: prepare it again")

    def _read_state(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class SourceReader:
    """Read sources as text, bytes or words.

    Attributes:
      kind: of the tokens.
      encoding, keep_line_ends: see `read_text`.
      on_progress: called with what is done, the bytes that are read and the bytes in total.
    """

    kind: Kind
    encoding: str
    keep_line_ends: bool
    on_progress: Progress

    def read(self, sources: Sequence[Source], label: str) -> Iterator[tuple[Source, Any]]:
        """Yield each source with an iterator over its pieces: texts, bytes, or lists of words.

        Raises:
          TextError: a file cannot be read or decoded, or was changed in the meantime.
        """
        total, before = sum(source.size for source in sources), 0
        for source in sources:
            digest, read = hashlib.sha256(), [before]

            def on_chunk(chunk: bytes, digest: Any = digest, read: list[int] = read) -> None:
                digest.update(chunk)
                read[0] += len(chunk)
                self.on_progress(label, read[0], total)

            yield source, self._pieces(source.path, on_chunk)
            source.sha256 = digest.hexdigest()
            source.check_unchanged()
            before += source.size

    def _pieces(self, path: Path, on_chunk: Callable[[bytes], None]) -> Iterable[Any]:
        if self.kind == "bytes":
            return _watched(read_chunks(path), on_chunk)
        options: dict[str, Any] = dict(encoding=self.encoding, keep_line_ends=self.keep_line_ends)
        pieces = read_pieces(path, **options, on_chunk=on_chunk)
        if self.kind == "words":
            return word_pieces(pieces)
        return line_pieces(pieces, LONGEST) if self.kind == "subwords" else pieces


def _watched(chunks: Iterable[bytes], on_chunk: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        on_chunk(chunk)
        yield chunk
