"""Memory that was freed, but is kept by the C library."""

import ctypes
import sys


def release_freed_memory() -> None:
    """Return the memory that was freed to the system; without glibc, do nothing.

    glibc keeps what was freed between allocations that are still in use: hundreds of megabytes
    after a compilation or the save of a checkpoint.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if trim := getattr(library, "malloc_trim", None):
        trim(0)
