"""Stop a training on Ctrl-C or a termination signal."""

import os
import signal
from typing import Any, Self


class StopOnSignal:
    """Context in which SIGINT or SIGTERM requests a stop; the second signal exits immediately."""

    def __enter__(self) -> Self:
        self.signals: int = 0
        self.handlers: dict[int, Any] = {
            s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Return whether a signal has arrived."""
        return self.signals > 0

    def _on_signal(self, *_: object) -> None:
        self.signals += 1
        if self.signals == 1:
            _write_stderr("stopping after this dispatch; press Ctrl-C again to stop without saving")
        else:
            _write_stderr("stopped; --resume continues from the last checkpoint")
            os._exit(130)  # a normal exit may wait for minutes for the threads of Orbax


def _write_stderr(message: str) -> None:
    """Write a line to stderr from a signal handler, which may have interrupted a print."""
    show_cursor = "\033[?25h" if os.isatty(2) else ""
    os.write(2, f"{show_cursor}\n{message}\n".encode())
