"""End the program on a signal: at once, or after a checkpoint."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Self

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")  # Windows has the first two
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
INTERRUPTED = 130  # exit status of a program that a signal ended
FAILED = 2
SAME = 0.3  # seconds within which a second SIGINT is a copy of the first, from a wrapper
GRACE = 0.3  # seconds that the main thread has to end the program itself


class StopOnSignal:
    """Context in which a signal ends the program at once or, while `saving`, asks for a stop.

    No handler raises an exception: JAX and the import system would swallow some of them. Python
    runs a handler in the main thread, between two instructions, so a compilation delays it. The
    part of the handler in C writes to a pipe at once, and a thread that reads the pipe ends the
    program if the main thread does not. A signal that was ignored before, as SIGHUP under `nohup`,
    stays ignored.

    Attributes:
      saving: a signal requests a stop; only a second Ctrl-C ends the program at once.
      save_within: seconds after which the program ends while it is `saving`; None for no limit.
      last_words: returns the text to print before the end; it may remove unfinished files.
      note: called with the name of the signal that requests a stop.
    """

    def __init__(self):
        self._lock = threading.RLock()  # a handler may interrupt the end that another one began
        self._reset()

    def _reset(self) -> None:
        self.saving: bool = False
        self.save_within: float | None = None
        self.last_words: Callable[[], str] = lambda: "stopped"
        self.note: Callable[[str], None] = lambda name: None
        self._received: str = ""
        self._handlers: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._reset()
        if threading.current_thread() is threading.main_thread():
            read, self._write = os.pipe()
            if os.name != "nt":
                os.set_blocking(self._write, False)
            self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, args=(read,), daemon=True)
            self._thread.start()
            heeded = [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
            self._handlers = {n: signal.signal(n, self._on_signal) for n in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._write)
        self._thread.join()  # it answers all signals that have arrived
        if self._timer:
            self._timer.cancel()
        self._reset()

    def requested(self) -> bool:
        """Return whether a signal has arrived."""
        return bool(self._received)

    def forget(self) -> None:
        """Restore the defaults in a forked child, whose signals are not the program's."""
        if self._thread is not None:
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._received = self._received or signal.Signals(number).name
        if not self.saving:
            self._end()

    def _watch(self, read: int) -> None:
        """Answer each signal whose number arrives through the pipe."""
        first = None  # the time of the request
        while data := os.read(read, 1):
            number = data[0]
            if number not in self._handlers:
                continue
            if not self.saving:
                time.sleep(GRACE)
            if not self.saving:
                self._end()
            elif first is None:
                first = time.monotonic()
                self._request(number)
            elif number == signal.SIGINT and time.monotonic() > first + SAME:
                self._end()
        os.close(read)

    def _request(self, number: int) -> None:
        name = signal.Signals(number).name
        self._received = self._received or name
        write_stderr("stopping after this dispatch; press Ctrl-C again to stop without saving")
        if self.save_within is not None:
            self._timer = threading.Timer(self.save_within, self._abandon)
            self._timer.daemon = True
            self._timer.start()
        self.note(name)

    def _abandon(self) -> None:
        if self.saving:
            self._end(f"error: not saved within {self.save_within:g} s (--save-within)\n", FAILED)

    def _end(self, prefix: str = "", status: int = INTERRUPTED) -> None:
        with self._lock:
            try:
                write_stderr(prefix + self.last_words())
            finally:
                os._exit(status)  # a normal exit may wait for minutes for the threads of Orbax


def write_stderr(message: str) -> None:
    """Write a line to stderr from a signal handler, which may have interrupted a print."""
    for descriptor, text in ((1, "\033[?25h"), (2, f"\n{message}\n")):  # first show the cursor
        with contextlib.suppress(OSError):  # the terminal may be closed
            if descriptor == 2 or os.isatty(descriptor):
                os.write(descriptor, text.encode(errors="replace"))


STOP = StopOnSignal()  # one, since the handlers belong to the process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STOP.forget)
