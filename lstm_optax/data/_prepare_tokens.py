"""Write a text of any size as a file of tokens, in constant memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lstm_optax.checks import check_choice, check_integer
from lstm_optax.data.count_tokens import make_vocabulary
from lstm_optax.data.subwords import LEAST
from lstm_optax.data.text import TextError
from lstm_optax.data.text_sources import Progress, Source, SourceReader
from lstm_optax.data.token_folder import (
    DESCRIPTION,
    FORMAT,
    PARTS,
    TOKENS,
    VOCABULARY,
    NewFolder,
    PreparedText,
    content_digest,
    read_tokens,
)
from lstm_optax.data.tokens import KINDS, AnyVocabulary, Kind, WordVocabulary

SHARES = (0.9, 0.05, 0.05)
Files = Sequence[str | PathLike[str]]


def prepare_tokens(
    train: Files,
    folder: str | PathLike[str],
    *,
    valid: Files = (),
    test: Files = (),
    shares: tuple[float, float, float] = SHARES,
    kind: Kind = "characters",
    vocabulary: int | None = None,
    encoding: str = "utf-8",
    keep_line_ends: bool = False,
    overwrite: bool = False,
    on_progress: Progress = lambda label, done, total: None,
) -> PreparedText:
    """Write texts as a file of tokens, which `read_tokens` reads without loading it.

    The texts are read in pieces, so the memory does not depend on their size. The folder receives
    tokens.bin, in the smallest unsigned dtype that holds all codes; vocabulary.json; and last
    tokens.json, the description.

    Args:
      train: text files for training; without `valid`, one text that is cut into parts.
      folder: is created; with `overwrite`, a prepared text in it is replaced.
      valid, test: text files for validation and test.
      shares: of the tokens for training, validation and test, where no files are given for them.
      kind: "characters"; "bytes", as they are; "words", see `WordVocabulary`; or "subwords", which
        need the package `tokenizers`, see `SubwordVocabulary`.
      vocabulary: the largest number of words, by default 50,000, or of subwords, by default 8,192.
        They come from the training part.
      encoding: of the files.
      keep_line_ends: keep the line ends of characters or subwords, instead of a "\\n" for each.
      overwrite: replace a prepared text in the folder.
      on_progress: called with what is done, the bytes that are read and the bytes in total.

    Raises:
      TextError: a file cannot be read, a part is too short, or the folder is in use. A prepared
        text in the folder is unchanged.
      ValueError: an argument is out of range, or does not fit the kind.
    """
    check_choice("kind", kind, KINDS)
    _check_shares(shares, apart=bool(valid), test=bool(test))
    _check_options(kind, vocabulary, encoding, keep_line_ends)
    given = zip(PARTS, (train, valid, test), strict=True)
    sources = [Source(Path(file), part) for part, files in given for file in files]
    if not train:
        raise ValueError("`train` names no file: pass at least one")
    reader = SourceReader(kind, encoding, keep_line_ends, on_progress)
    with NewFolder(Path(folder), overwrite=overwrite) as new:
        made = make_vocabulary(reader, sources, None if valid else shares[0], vocabulary)
        facts = _write_tokens(new.partial(TOKENS), reader, sources, made)
        facts["parts"] = _ranges(sources, None if valid else shares)
        facts["sha256"] = content_digest(facts, made)
        facts["sources"] = [
            {"file": str(s.path), "bytes": s.size, "sha256": s.sha256, "tokens": s.tokens}
            for s in sources
        ]
        facts |= {"encoding": encoding, "keep_line_ends": keep_line_ends}
        new.write_json(VOCABULARY, made.content)
        new.write_json(DESCRIPTION, facts | {"lstm_optax": version("lstm_optax")})
    return read_tokens(folder)


def _write_tokens(
    path: Path, reader: SourceReader, sources: Sequence[Source], vocabulary: AnyVocabulary
) -> dict[str, Any]:
    """Write the codes of all sources; count them in the sources; return facts about the file."""
    dtype = np.min_scalar_type(len(vocabulary) - 1).newbyteorder("<")
    digest, unknown = hashlib.sha256(), 0
    with path.open("wb") as file:
        for source, pieces in reader.read(sources, "writing tokens"):
            source.tokens = 0
            for piece in pieces:
                if isinstance(vocabulary, WordVocabulary):
                    codes = vocabulary.encode_words(piece)
                    unknown += int(np.sum(codes == 0))
                elif isinstance(piece, bytes):
                    codes = np.frombuffer(piece, np.uint8)
                else:
                    codes = vocabulary.encode(piece)
                data = codes.astype(dtype).tobytes()
                digest.update(data)
                file.write(data)
                source.tokens += len(codes)
        file.flush()
        os.fsync(file.fileno())
    return {
        "format": FORMAT,
        "kind": reader.kind,
        "dtype": dtype.str,
        "vocabulary": len(vocabulary),
        "tokens": sum(source.tokens for source in sources),
        "unknown": unknown,
        "tokens_sha256": digest.hexdigest(),
    }


def _ranges(
    sources: Sequence[Source], shares: Sequence[float] | None
) -> dict[str, tuple[int, int]]:
    """Return the first index and the index after the last of each part.

    Raises:
      TextError: a part has a single token, or none that should have some.
    """
    if shares is None:
        sizes = [sum(s.tokens for s in sources if s.part == part) for part in PARTS]
        wanted = [any(s.part == part for s in sources) for part in PARTS]
    else:
        total = sum(source.tokens for source in sources)
        held_out = [round(total * share) for share in shares[1:]]
        sizes = [total - sum(held_out), *held_out]
        wanted = [share > 0 for share in shares]
    for part, size, want in zip(PARTS, sizes, wanted, strict=True):
        if want and size < 2:
            raise TextError(
                f"the part {part} has {size} tokens, but needs 2 or more, one to read and one to "
                "predict: use a longer text, or another share"
            )
    ends = np.cumsum(sizes).tolist()
    return dict(zip(PARTS, zip([0, *ends], ends, strict=False), strict=True))


def _check_shares(shares: Sequence[float], *, apart: bool, test: bool) -> None:
    if test and not apart:
        raise ValueError("`test` has files but `valid` has none: pass files for both, or neither")
    if apart:
        if tuple(shares) != SHARES:
            raise ValueError(
                "`shares` cuts a text, but `valid` has files of its own: pass only one"
            )
        return
    train, valid, rest = shares
    if not (0 < train < 1 and 0 < valid < 1 and 0 <= rest < 1 and abs(sum(shares) - 1) < 1e-6):
        raise ValueError(
            f"`shares` is {' '.join(f'{share:g}' for share in shares)}, but must be three numbers "
            "whose sum is 1, those of training and validation above 0, such as 0.8 0.1 0.1"
        )


def _check_options(kind: Kind, vocabulary: int | None, encoding: str, keep_line_ends: bool) -> None:
    if vocabulary is not None:
        if kind not in ("words", "subwords"):
            raise ValueError(
                f"`vocabulary` is the number of words, but the kind is {kind}: leave it out"
            )
        check_integer("`vocabulary`", vocabulary, 2 if kind == "words" else LEAST)
    if encoding != "utf-8" and kind == "bytes":
        raise ValueError(
            "`encoding` is not used for bytes, which are read as they are: leave it out"
        )
    if keep_line_ends and kind in ("bytes", "words"):
        reason = "always keep them" if kind == "bytes" else "have one word for every line end"
        raise ValueError(f"`keep_line_ends` is not for {kind}, which {reason}: leave it out")
