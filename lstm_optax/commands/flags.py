"""Flags read by tyro: hints at their names, help that wraps, and errors that speak of flags."""

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

from lstm_optax.runs.options import OptionError, SampleConfig, TrainConfig

DESCRIPTION = "Train LSTMs with exact optimizers. `lstm-optax --version` prints the version."
ARGUMENTS = {
    field.name for config in (TrainConfig, SampleConfig) for field in dataclasses.fields(config)
}


def parse_flags(kind: Any, argv: Sequence[str], prog: str, names: Sequence[str] = ()) -> Any:
    """Return what `tyro.cli` makes of the flags.

    Args:
      kind: what to make, for tyro.
      argv: the command line, without the program's name.
      prog: the program's name.
      names: those of all flags, without dashes, to hint at.

    Raises:
      OptionError: a flag is empty, or near another in its words or initials, such as --lr.
    """
    for argument, value in pairwise([*argv, "-"]):
        flag, has_value, given = argument.partition("=")
        if flag.startswith("--") and (value == "" if not has_value else given == ""):
            raise OptionError(f"{flag} is empty: give it a value")
        if flag.startswith("--") and flag[2:].removeprefix("no-") not in names:
            if meant := next((name for name in names if _is_meant(name, flag[2:])), None):
                raise OptionError(f"{flag} is no option: did you mean --{meant}?")
    with contextlib.redirect_stdout(_Wrapped(sys.stdout)):  # pyright: ignore[reportArgumentType]
        return tyro.cli(kind, args=list(argv), prog=prog, description=DESCRIPTION)


def flags_of(command: Any) -> list[str]:
    """Return the names of a command's flags, without dashes."""
    return list(_names(command))


def speak_of_flags(message: str) -> str:
    """Return an error of the library with flags in place of the arguments that it quotes."""

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in ARGUMENTS:
            return match[0]
        name = f"--{name.replace('_', '-')}"
        return f"{name} {value.strip(chr(39))}" if value else name

    return re.sub(r"`(?P<name>\w+)(=(?P<value>[^`]+))?`", flag, message)


def _names(kind: Any) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        if field.name == "config":
            yield from _names(field.default_factory)
        else:
            yield field.name.replace("_", "-")


def _is_meant(name: str, given: str) -> bool:
    """Whether a flag's name has the words of another, or the other way round, or its initials."""
    words, other = name.split("-"), given.split("-")
    initials = "".join(word[0] for word in words)
    return set(words) <= set(other) or set(other) <= set(words) or initials == given != name[:1]


class _Wrapped:
    """A stream that breaks prose at the terminal's width; tyro does it in boxes alone."""

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
