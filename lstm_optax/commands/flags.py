"""Parse flags with tyro: hints for misspelt flags, help that wraps, errors that name flags."""

import contextlib
import dataclasses
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TextIO

import tyro

from lstm_optax.commands.prepare import Prepare
from lstm_optax.commands.reproduce import Reproduce
from lstm_optax.runs.constraints import OptionError, flag_of
from lstm_optax.runs.options import SampleConfig, TrainConfig

DESCRIPTION = "Train LSTMs with exact optimizers. `lstm-optax --version` prints the version."
OPTIONS = {
    field.name
    for config in (TrainConfig, SampleConfig, Prepare, Reproduce)
    for field in dataclasses.fields(config)
}

FILES_APART = ("--train", "--valid", "--test")
PREPARE_FIRST = (
    "write files that are given apart to a folder with `lstm-optax prepare --train FILE… "
    "--valid FILE… --test FILE… --out DIR`, and train with --text DIR"
)


def parse_flags(kind: Any, argv: Sequence[str], prog: str, names: Sequence[str] = ()) -> Any:
    """Parse the command line with tyro.

    Args:
      kind: type of the result, for tyro.
      argv: command line without the program's name.
      prog: name of the program, for the help.
      names: names of all flags, without dashes, for hints.

    Raises:
      OptionError: a flag has no value, or is unknown and similar to a flag, as --lr is,
        or is one of `prepare` for files given apart.
    """
    for argument, value in pairwise([*argv, "-"]):
        flag, has_value, given = argument.partition("=")
        if flag.startswith("--") and (value == "" if not has_value else given == ""):
            raise OptionError(f"{flag} is empty: pass a value")
        if flag.startswith("--") and flag[2:].removeprefix("no-") not in names:
            if flag in FILES_APART and "train" in (*argv[:1], *prog.split()[1:]):
                raise OptionError(f"{flag} is not an option of train: {PREPARE_FIRST}")
            if meant := next((name for name in names if _is_similar(name, flag[2:])), None):
                raise OptionError(f"{flag} is not an option: did you mean --{meant}?")
    with contextlib.redirect_stdout(_WrappingStream(sys.stdout)):  # pyright: ignore[reportArgumentType]
        return tyro.cli(kind, args=list(argv), prog=prog, description=DESCRIPTION)


def flags_of(command: Any) -> list[str]:
    """Return the names of a command's flags, without dashes."""
    return list(_flag_names(command))


def replace_arguments_by_flags(message: str) -> str:
    """Return an error message of the library with flags in place of the quoted arguments."""

    def to_flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in OPTIONS:
            return match[0]
        return f"{flag_of(name)} {value.strip(chr(39))}" if value else flag_of(name)

    return re.sub(r"`(?P<name>\w+)(=(?P<value>[^`]+))?`", to_flag, message)


def _flag_names(kind: Any) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            yield from _flag_names(field.default_factory)
        else:
            yield field.name.replace("_", "-")


def _is_similar(name: str, given: str) -> bool:
    """Return whether one name has all words of the other, or `given` has the initials of `name`."""
    words, other = name.split("-"), given.split("-")
    initials = "".join(word[0] for word in words)
    return set(words) <= set(other) or set(other) <= set(words) or initials == given != name[:1]


class _WrappingStream:
    """A stream that wraps prose at the terminal's width; tyro wraps only the text in boxes."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        width = shutil.get_terminal_size().columns
        lines = [
            textwrap.fill(line, width) if len(line) > width and line[0].isalpha() else line
            for line in text.split("\n")
        ]
        return self._stream.write("\n".join(lines))
