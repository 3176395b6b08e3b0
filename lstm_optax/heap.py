"""How the C library keeps memory that was freed; nothing here does anything without glibc."""

import ctypes
import sys

ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""


def share_one_heap() -> None:
    """Let the threads that start from now on allocate from a heap that exists.

    Otherwise each thread of XLA and of Orbax has a heap of its own, and what is freed in one is of
    no use in another. It is for a program at its start, when there are one or two, not for a
    library.
    """
    if option := getattr(_c_library(), "mallopt", None):
        option(ARENA_MAX, 1)


def release_freed_memory() -> None:
    """Return the memory that was freed to the system.

    glibc keeps what was freed between allocations that are still in use: hundreds of megabytes
    after a compilation or the save of a checkpoint.
    """
    if trim := getattr(_c_library(), "malloc_trim", None):
        trim(0)


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
