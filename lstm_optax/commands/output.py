"""Output that a closed pipe or terminal does not end."""

import contextlib
import io
import os
from collections.abc import Callable
from typing import IO, Any, cast

from rich.console import Console

from lstm_optax.commands.signals import write_stderr


def keep_running(console: Console, note: Callable[[str], None] = lambda message: None) -> None:
    """Let a command run to its end without a screen if the console's pipe or terminal closes.

    Args:
      console: the output of the command.
      note: called once with a message if the output is lost, which stderr shows too.
    """
    console.file = cast(IO[str], LastingOutput(console.file, note))


class LastingOutput:
    """A text stream that drops its output after the first error.

    Args:
      stream: the stream to write to.
      note: called once with a message about the error.
    """

    def __init__(self, stream: IO[str], note: Callable[[str], None]):
        self._stream, self._note, self._lost = stream, note, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        if not self._lost:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        if not self._lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        with contextlib.suppress(io.UnsupportedOperation):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # for the flush at the exit of Python
            os.close(null)
        message = f"the output is closed ({error.strerror}); the command runs on without it"
        write_stderr(message)
        self._note(message)
