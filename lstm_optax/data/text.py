"""Text for character models: the default corpus, the vocabulary, and the validation split.

A text passes through `read_text` (or `topics_text`), `Vocabulary.of`, `encode`, `split` and
`Windows.of`. All arrays are NumPy's; a model takes those of a `Batch` without conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class TextError(ValueError):
    """A text that cannot be used; the message says why, and what to do."""


def topics_text() -> str:
    """Return the text that ships with CPython: the language reference shown by `help()`.

    The values of `pydoc_data.topics.topics` in the order of their keys, joined by newlines, with
    every non-ASCII character replaced by "?". About half a million characters; they differ between
    Python versions.

    Raises:
      TextError: this Python has no `pydoc_data`.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError(
            "this Python has no pydoc_data.topics, the default text: use a text of your own "
            "instead, `text=FILE` or read_text(path)"
        ) from None
    text = "\n".join(topics[key] for key in sorted(topics))
    return text.encode("ascii", "replace").decode("ascii")


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a model; the code of a character is its index in them.

    Attributes:
      characters: V ≥ 2 single characters, sorted and distinct.

    Raises:
      TextError: fewer than two distinct characters, so there is nothing to predict.
      ValueError: characters that are not single, sorted and distinct.
    """

    characters: tuple[str, ...]
    unit: ClassVar[str] = "character"

    def __post_init__(self) -> None:
        if any(len(character) != 1 for character in self.characters):
            raise ValueError("a vocabulary consists of single characters: use Vocabulary.of(text)")
        if list(self.characters) != sorted(set(self.characters)):
            raise ValueError("a vocabulary is sorted and distinct: use Vocabulary.of(text)")
        if len(self) < 2:
            raise TextError(
                f"the text has {len(self)} distinct characters, but a model needs 2 or more: "
                "use another text"
            )

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of exactly the characters in `text`."""
        return cls(tuple(sorted(set(text))))

    @property
    def content(self) -> str:
        """All characters as one text, from which `Vocabulary.of` makes an equal vocabulary."""
        return "".join(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the codes [N] of the N characters of `text`, each in 0 … V−1.

        Raises:
          TextError: the text has characters that are not in the vocabulary; the message names some.
        """
        known, points = self._character_points(), _code_points(text)
        codes = np.minimum(np.searchsorted(known, points), len(known) - 1)
        unknown = np.unique(points[known[codes] != points])
        if unknown.size:
            raise TextError(
                f"{_list_characters(unknown)} in the text, not in the vocabulary of "
                f"{len(self)}: remove them, or train on a text that has them"
            )
        return codes.astype(np.int32)

    def decode(self, codes: NDArray[np.integer]) -> str:
        """Return the text of `codes` [N], each in 0 … V−1: `decode(encode(text)) == text`.

        Raises:
          ValueError: codes of more than one axis, or out of that range, such as a padding of −1.
        """
        codes = np.asarray(codes, np.int64)
        if codes.ndim != 1:
            raise ValueError(f"codes have shape {codes.shape}, not [N]: decode one row at a time")
        if codes.size and not (0 <= codes.min() and codes.max() < len(self)):
            raise ValueError(f"codes span {codes.min()} … {codes.max()}, not 0 … {len(self) - 1}")
        return self._character_points()[codes].tobytes().decode("utf-32-le", "surrogatepass")

    def _character_points(self) -> NDArray[np.uint32]:
        return _code_points(self.content)


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _list_characters(points: NDArray[np.uint32], limit: int = 5) -> str:
    named = ", ".join(repr(chr(point)) for point in points[:limit])
    rest = f" and {len(points) - limit} more" if len(points) > limit else ""
    return f"{named}{rest} {'is' if len(points) == 1 else 'are'}"


def split(
    codes: NDArray[np.int32], validation: float = 0.1
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Split `codes` [N] into a first part for training and a last part for validation.

    Args:
      validation: the size of the last part: a share between 0 and 1 if it is a float, a number of
        codes if it is an int.

    Raises:
      ValueError: a share that is not between 0 and 1.
      TextError: a part shorter than 2 characters, one to read and one to predict.
    """
    if isinstance(validation, int | np.integer):
        cut = len(codes) - int(validation)
    elif 0 < validation < 1:
        cut = len(codes) - round(len(codes) * validation)
    else:
        raise ValueError(f"validation is {validation}, but must be a share between 0 and 1")
    if cut < 2 or len(codes) - cut < 2:
        raise TextError(
            f"{len(codes)} characters split into {cut} to train and {len(codes) - cut} to "
            "validate, but each part needs 2 or more: use a longer text, or another `validation`"
        )
    return codes[:cut], codes[cut:]
