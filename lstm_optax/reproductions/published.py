"""The table of reproductions: published numbers, their sources and their data; imports no JAX."""

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from lstm_optax.studies.study_records import StudyError

Relation = Literal["equal", "above", "below"]


@dataclass(frozen=True)
class Published:
    """A number that a source published.

    Attributes:
      row: what it belongs to, such as the name of an optimizer.
      at: where it was measured, such as "epoch 1".
      value: the number.
      relation: "equal" for the number itself; "above" or "below" if it is a bound.
    """

    row: str
    at: str
    value: float
    relation: Relation = "equal"


@dataclass(frozen=True)
class DataFile:
    """A file that the user has to provide.

    Attributes:
      content: what the file contains.
      sha256: of its bytes without a byte order mark.
      where: where to get it.
    """

    content: str
    sha256: str
    where: str

    def read(self, path: Path | None) -> bytes:
        """Return the bytes of the file, without a byte order mark.

        Raises:
          StudyError: no file, or one with other bytes; the message says where to get the file.
        """
        wanted = f"{self.content} (SHA-256 {self.sha256}): get it from {self.where}"
        if path is None:
            raise StudyError(f"`data` is missing; pass the file with {wanted}")
        if not path.is_file():
            raise StudyError(f"`data={path}`: there is no such file; expected {wanted}")
        try:
            data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            raise StudyError(f"`data={path}` cannot be read: {error.strerror}") from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise StudyError(f"`data={path}` has the SHA-256 {found}; expected {wanted}")
        return data


@dataclass(frozen=True)
class Reproduction:
    """A published result, and what is trained to reproduce it.

    Attributes:
      name: for the command.
      claim: what was published.
      source: the reference.
      trained: what is trained here.
      published: the numbers.
      module: that trains it, in `lstm_optax.reproductions`.
      metric: what the numbers are, for the head of a column.
      seeds: default number of seeds.
      epochs: default number of passes over the data; None if the length is fixed.
      data: the file that is needed; None for none.
    """

    name: str
    claim: str
    source: str
    trained: str
    published: tuple[Published, ...]
    module: str
    metric: str
    seeds: int = 3
    epochs: int | None = None
    data: DataFile | None = None

    @property
    def length(self) -> str:
        """How much is trained by default, as text."""
        passes = f", {self.epochs} epoch{'s' * (self.epochs > 1)}" if self.epochs else ""
        return f"{self.seeds} seeds{passes}"

    def check_arguments(self, data: object, epochs: int | None) -> None:
        """Raise StudyError for an argument that this reproduction does not have."""
        if data is not None and self.data is None:
            raise StudyError(f"{self.name} needs no file: leave out `data`")
        if epochs is not None and self.epochs is None:
            raise StudyError(f"{self.name} has a fixed length: leave out `epochs`")


WAR_AND_PEACE = DataFile(
    content="War and Peace in 3,258,243 bytes",
    sha256="6c598f349d92e16fcf8e29b3328be35c30b814bc0f2bfacf29a429700d9c3141",
    where="https://cs.stanford.edu/people/karpathy/char-rnn/warpeace_input.txt",
)

AEON_WHEEL = DataFile(
    content="the wheel of aeon 1.6.0, which contains the Japanese Vowels",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    where="`pip download --no-deps aeon==1.6.0`",
)

# Mean test losses of the seeds by the row and the epoch, of the files that we could read in the
# folder baselines/tolstoi_char_rnn of the repository fsschneider/DeepOBS at commit 873bbc2: seeds
# 42, 44, 48 and 49 of Adam, 42 to 46 of SGD, and 42, 46, 48 and 49 of momentum.
_DEEPOBS = {
    "Adam": {1: 1.750, 3: 1.526, 10: 1.388, 20: 1.340, 200: 1.265},
    "SGD": {1: 2.170, 3: 1.719, 10: 1.436, 20: 1.351, 200: 1.227},
    "Momentum": {1: 2.331, 3: 1.790, 10: 1.491, 20: 1.401, 200: 1.265},
}

_ALL = (
    Reproduction(
        name="deepobs-char-rnn",
        claim="test losses of tuned Adam, SGD and momentum on War and Peace, by epoch",
        source="Schneider, Balles & Hennig, 2019, DeepOBS, arXiv:1903.05499, tolstoi_char_rnn",
        trained="two LSTM layers of 128 units on characters, with dropout, without a clip",
        published=tuple(
            Published(row, f"epoch {epoch}", value)
            for row, values in _DEEPOBS.items()
            for epoch, value in values.items()
        ),
        module="char_rnn",
        metric="test loss in nats",
        epochs=3,
        data=WAR_AND_PEACE,
    ),
    Reproduction(
        name="deepobs-momentum",
        claim="momentum's test loss on War and Peace, by other readings of the source",
        source="Schneider, Balles & Hennig, 2019, DeepOBS, arXiv:1903.05499, tolstoi_char_rnn",
        trained="the model of deepobs-char-rnn",
        published=tuple(
            Published(f"{row}, {reading}", f"epoch {epoch}", value)
            for row, reading in (
                ("Momentum", "Nesterov"),
                ("Momentum", "lazy embedding rows"),
                ("Momentum", "one step per occurrence"),
                ("Momentum", "line feeds"),
                ("SGD", "line feeds"),
            )
            for epoch, value in _DEEPOBS[row].items()
        ),
        module="char_rnn_momentum",
        metric="test loss in nats",
        epochs=3,
        data=WAR_AND_PEACE,
    ),
    Reproduction(
        name="greff-2017",
        claim="the learning rate explains more than two thirds of the variance, momentum below 1 %",
        source="Greff et al., 2017, LSTM: A Search Space Odyssey, arXiv:1503.04069",
        trained="random searches of four hyper-parameters on 8 × 8 digits, read row by row",
        published=(
            Published("learning rate", "share of variance", 2 / 3, "above"),
            Published("momentum", "share of variance", 0.01, "below"),
        ),
        module="rate_share",
        metric="share of the variance of the test error",
    ),
    Reproduction(
        name="sequential-digits",
        claim="none that is comparable: published numbers are of the larger images of MNIST",
        source="none",
        trained="64 LSTM units on 8 × 8 digits, read pixel by pixel and row by row",
        published=(),
        module="sequential_digits",
        metric="accuracy",
        seeds=5,
    ),
    Reproduction(
        name="spoken-vowels",
        claim="0.941 by the authors of the data, 0.962 by a hidden Markov model with five states",
        source="Kudo, Toyama & Shimbo, 1999, Pattern Recognition Letters 20, pages 1103-1111",
        trained="64 LSTM units in each direction on 7 to 29 frames of speech, to name the speaker",
        published=(Published("LSTM", "test accuracy", 0.962, "above"),),
        module="spoken_vowels",
        metric="accuracy",
        seeds=5,
        data=AEON_WHEEL,
    ),
    Reproduction(
        name="awd-lstm-averaging",
        claim="NT-ASGD is better than SGD: 63.7/57.3 in perplexity on the Penn Treebank",
        source="Merity, Keskar & Socher, 2018, AWD-LSTM, arXiv:1708.02182",
        trained="200 LSTM units on the words of the first 500 kB of War and Peace",
        published=(Published("SGD / NT-ASGD", "ratio of test perplexities", 1.0, "above"),),
        module="word_averaging",
        metric="ratio of perplexities",
        data=WAR_AND_PEACE,
    ),
)

REPRODUCTIONS: Mapping[str, Reproduction] = {found.name: found for found in _ALL}
"""The reproductions by name."""


def find_reproduction(name: str) -> Reproduction:
    """Return a reproduction by name.

    Raises:
      StudyError: an unknown name; the message lists all.
    """
    if name in REPRODUCTIONS:
        return REPRODUCTIONS[name]
    near = get_close_matches(name, REPRODUCTIONS, n=1, cutoff=0.4)
    hint = f"the nearest is {near[0]}; " if near else ""
    known = ", ".join(REPRODUCTIONS)
    raise StudyError(f"there is no reproduction {name!r}; {hint}there are {known}")
