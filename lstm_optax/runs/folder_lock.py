"""One process at a time writes to a folder: a lock that ends with its process; imports no JAX."""

import errno
import json
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lstm_optax.runs.constraints import OptionError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_FILE = ".lock"
BRIEFLY = 0.2  # seconds, in which a holder that has just begun writes its name
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without locks


@contextmanager
def hold_folder(
    folder: Path, *, wait: float = BRIEFLY, warn: Callable[[str], None] = warnings.warn
) -> Iterator[None]:
    """A context in which no other process, and no other thread, holds the folder.

    The file `.lock` is locked with flock on Unix and LockFileEx on Windows: the system releases it
    when the process ends, however it ends. The thread that holds a folder may hold it again. The
    folder is created, and removed at the end if it was created here and is still empty. The file is
    kept, but removed after an exception if it was created here.

    Args:
      folder: to hold.
      wait: longest time in seconds to wait for another holder.
      warn: called with a message where the file system has no locks; the folder is not locked then.

    Raises:
      OptionError: another process or thread holds the folder, or `.lock` is a symbolic link.
      OSError: the folder cannot be written.
    """
    from filelock import FileLock

    place = folder.absolute()
    missing = [part for part in (place, *place.parents) if not part.exists()]
    fresh = not (place / LOCK_FILE).exists()
    if (place / LOCK_FILE).is_symlink():
        raise OptionError(f"{folder / LOCK_FILE} is a symbolic link, not a lock: remove it")
    lock = FileLock(
        place / LOCK_FILE,
        is_singleton=True,
        fallback_to_soft=False,  # its marker would outlive a process that is killed
        preserve_lock_file=True,
        on_acquired=_write_holder,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locked = _acquire(lock, folder, wait, warn)
        try:
            yield
            fresh = False
        finally:
            if locked:
                _release(lock, remove=fresh)
    finally:
        with suppress(OSError):  # not empty
            for part in missing:
                part.rmdir()


def _acquire(lock: "BaseFileLock", folder: Path, wait: float, warn: Callable[[str], None]) -> bool:
    """Acquire a lock; return whether the file system has locks."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=wait)
    except Timeout:
        holder = _read_holder(Path(lock.lock_file))
        raise OptionError(
            f"{folder} is in use by {holder}: wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warn(f"{folder} cannot be locked ({error.strerror}): let only one process write to it")
        return False
    return True


def _release(lock: "BaseFileLock", *, remove: bool) -> None:
    """Release a lock; its file is kept, except on demand and in a folder with nothing else."""
    path = Path(lock.lock_file)
    if lock.lock_counter == 1 and (remove or os.listdir(path.parent) == [path.name]):
        with suppress(OSError):  # Windows keeps a file that is open
            path.unlink()
    lock.release()


def _write_holder(descriptor: int) -> None:
    """Write who holds the lock; from the second byte on, as Windows locks the first one."""
    since = datetime.now().isoformat(" ", "seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, os.write(descriptor, f" {json.dumps(holder)}\n".encode()))


def _read_holder(path: Path) -> str:
    """Return who holds the lock, as a text."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(1)
            holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
