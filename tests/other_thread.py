"""Whether another process could hold a folder, seen from a thread, which the lock treats as one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lstm_optax.runs.folder_lock import hold_folder


def is_free(folder: Path) -> bool:
    """Return whether another thread, which counts as another process, can hold a folder."""

    def hold():
        with hold_folder(folder, wait=0):
            pass

    with ThreadPoolExecutor(1) as other:
        error = other.submit(hold).exception(timeout=10)
    assert error is None or "is in use by process" in str(error)
    return error is None
