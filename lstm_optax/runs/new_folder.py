"""A new folder with the time as its name; imports no JAX."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path


def make_new_folder(parent: Path, check: Callable[[Path], None] = lambda path: None) -> Path:
    """Create a folder TIME in a parent folder, or TIME-2 and so on, and return it.

    Processes and threads that call it in the same second get different folders.

    Args:
      parent: is created as well.
      check: called with the path before it is created; may raise.
    """
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in count(1):
        path = parent / (time if number == 1 else f"{time}-{number}")
        check(path)
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
                return path
            except FileExistsError:
                break
            except FileNotFoundError:  # another process has removed the parent, which was empty
                continue
    raise AssertionError("unreachable: count has no end")


def remove_if_empty(*folders: Path) -> None:
    """Remove folders, from the innermost one outwards, up to the first that is not empty."""
    with suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()
