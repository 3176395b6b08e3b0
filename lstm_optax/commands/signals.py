"""Signals that ask the command line to stop."""

import os
import signal
from typing import Any, Self


class StopOnSignal:
    """Ctrl-C or a termination asks to stop at the next occasion; the second one stops at once."""

    def __enter__(self) -> Self:
        self.signals: int = 0
        self.before: dict[int, Any] = {
            s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        return self.signals > 0

    def _on_signal(self, *_: object) -> None:
        self.signals += 1
        if self.signals == 1:
            _tell("stopping after this dispatch; Ctrl-C again stops at once, without saving")
        else:
            _tell("stopped at once; --resume goes on from the last checkpoint")
            os._exit(130)  # an orderly exit would wait for minutes for the threads of Orbax


def _tell(message: str) -> None:
    """Write a line to stderr from a signal handler, where Python's streams may be in use."""
    show_cursor = "\033[?25h" if os.isatty(2) else ""
    os.write(2, f"{show_cursor}\n{message}\n".encode())
