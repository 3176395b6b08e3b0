"""A prepared text: tokens in a file, their vocabulary and a description."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data.text import TextError
from lstm_optax.data.tokens import AnyVocabulary, vocabulary_of

DESCRIPTION, TOKENS, VOCABULARY = "tokens.json", "tokens.bin", "vocabulary.json"
FILES = (TOKENS, VOCABULARY, DESCRIPTION)  # the description is the last to be written
FORMAT = 1
PARTS = ("train", "valid", "test")


class TokenFile:
    """A part of a file of tokens, which reads like an array of codes [N].

    An index loads the codes that it selects. The pages of the file that were read are released
    again, so the memory of the process does not grow with the part of the file that it has read.

    Args:
      path: the file, which stays open.
      dtype: of a token.
      start: index of the first token.
      stop: index after the last token.
    """

    def __init__(self, path: Path, dtype: str, start: int, stop: int):
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._codes = np.frombuffer(self._map, dtype)[start:stop]

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: Any) -> NDArray[np.int32]:
        codes = self._codes[index].astype(np.int32)
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return codes


class PreparedText(NamedTuple):
    """A text that `prepare_tokens` wrote."""

    path: Path
    vocabulary: AnyVocabulary
    parts: dict[str, TokenFile]  # "train", "valid" and, if it is not empty, "test"
    description: dict[str, Any]  # the content of tokens.json


class NewFolder:
    """A prepared text that is being written; a context that leaves all of it, or nothing.

    New files have names of their own until the context ends. After an error they are removed, and
    a prepared text that was in the folder before is unchanged.

    Args:
      path: the folder.
      overwrite: replace the prepared text in it.

    Raises:
      TextError: on entry, the folder has other files, or a prepared text without `overwrite`.
    """

    def __init__(self, path: Path, *, overwrite: bool):
        self.path: Path = path
        self.overwrite: bool = overwrite

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_dir():
            raise TextError(f"{self.path} is a file: name a folder with `out`")
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        if DESCRIPTION in names and not self.overwrite:
            raise TextError(
                f"{self.path} already has a prepared text: replace it with `overwrite`, or name "
                "another folder with `out`"
            )
        own = {name for file in FILES for name in (file, self.partial(file).name)}
        if DESCRIPTION not in names and names - own:
            raise TextError(
                f"{self.path} has other files, such as {min(names - own)}: name another folder "
                "with `out`"
            )
        self._parents = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            # without its description a folder has no prepared text, so a crash here is no mixture
            (self.path / DESCRIPTION).unlink(missing_ok=True)
            for name in FILES:
                os.replace(self.partial(name), self.path / name)
            return
        for name in FILES:
            self.partial(name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another program has put a file there
            for folder in self._parents:
                folder.rmdir()

    def partial(self, name: str) -> Path:
        """Return the path of a file while it is being written."""
        return self.path / f"{name}.partial"

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of JSON to the disk."""
        with self.partial(name).open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())


def read_tokens(folder: str | PathLike[str]) -> PreparedText:
    """Return a text that `prepare_tokens` wrote, without loading its tokens.

    Raises:
      TextError: the folder has no such text, or its files are damaged or of another version.
    """
    path = Path(folder)
    if not (path / DESCRIPTION).is_file():
        raise TextError(
            f"{path} is a folder: name one text file in it, or a folder that lstm-optax prepare "
            "wrote"
        )
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, not {FORMAT}")
        kind, dtype = description["kind"], description["dtype"]
        found, tokens = (path / TOKENS).stat().st_size, description["tokens"]
        if found != tokens * np.dtype(dtype).itemsize:
            raise ValueError(f"{TOKENS} has {found:,} bytes, not those of {tokens:,} tokens")
        with (path / TOKENS).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != description["tokens_sha256"]:
                raise ValueError(f"the SHA-256 of {TOKENS} does not match")
        content = json.loads((path / VOCABULARY).read_text(encoding="utf-8"))
        vocabulary = vocabulary_of(kind, content)
        if description["sha256"] != content_digest(description, vocabulary):
            raise ValueError("its SHA-256 does not match")
        parts = {
            name: TokenFile(path / TOKENS, dtype, start, stop)
            for name, (start, stop) in description["parts"].items()
            if stop > start
        }
        if not {"train", "valid"} <= set(parts):
            raise ValueError("it has no part to train on, or none to validate on")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TextError(
            f"{path} is damaged ({reason}): prepare it again, with `overwrite`"
        ) from None
    return PreparedText(path, vocabulary, parts, description)


def content_digest(facts: dict[str, Any], vocabulary: AnyVocabulary) -> str:
    """Return the SHA-256 of what a training reads: the tokens, their meaning and their parts."""
    read = {name: facts[name] for name in ("kind", "dtype", "parts", "tokens_sha256")}
    text = json.dumps([read, vocabulary.content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
