"""`Background`: one task at a time in a thread, which the end of the program waits for."""

import atexit
import concurrent.futures.thread  # noqa: F401  its own function for the end is registered first
import logging
import threading
from collections.abc import Callable
from pathlib import Path

BY_FOLDER: dict[Path, "Background"] = {}


class Background:
    """One task at a time in a thread of its own; its error is raised by `result`."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @classmethod
    def of(cls, folder: Path) -> "Background":
        """Return the one that all users of a folder in this process share."""
        return BY_FOLDER.setdefault(folder.resolve(), cls())

    def start(self, task: Callable[[], None]) -> None:
        """Run a task in a thread; the task before it must have ended."""
        self._thread = threading.Thread(target=self._run, args=(task,), name="checkpoint")
        self._thread.start()

    def join(self) -> None:
        """Wait for the task; its error is kept for `result`."""
        thread = self._thread
        if thread and thread is not threading.current_thread():
            thread.join()

    def result(self) -> None:
        """Wait for the task, and raise its error if it failed; an error is raised once."""
        self.join()
        error, self._error = self._error, None
        if error:
            raise error

    def _run(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            self._error = error


def _wait_at_exit() -> None:
    for background in BY_FOLDER.values():
        try:
            background.result()
        except BaseException as error:
            logging.getLogger(__name__).error("%s", error)


# Before Python shuts its executors down, which Orbax needs to finish; functions of `atexit` run
# only afterwards.
getattr(threading, "_register_atexit", atexit.register)(_wait_at_exit)
