"""Memory that the C library keeps is returned to the system."""

import ctypes
import sys
from pathlib import Path

import pytest

from lstm_optax.heap import release_freed_memory

C = ctypes.CDLL(None) if sys.platform == "linux" else None
CHUNK, COUNT = 60_000, 1000  # smaller than what glibc maps apart


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not hasattr(C, "malloc_trim"), reason="no glibc")
def test_freed_memory_is_released():
    C.malloc.restype, C.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    chunks = [C.malloc(CHUNK) for _ in range(COUNT)]
    for chunk in chunks:
        ctypes.memset(chunk, 1, CHUNK)
    kept = chunks[::16]  # between the others, so that they cannot be returned as a whole
    for chunk in set(chunks) - set(kept):
        C.free(chunk)
    before = resident_bytes()
    release_freed_memory()
    assert before - resident_bytes() > 0.5 * CHUNK * COUNT
    for chunk in kept:
        C.free(chunk)


def test_nothing_is_released_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_freed_memory()
