"""Threads share one heap, and memory that the C library keeps is returned to the system."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_optax.heap import release_freed_memory, share_one_heap

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


HEAPS = """
import ctypes, sys, threading
from lstm_optax.commands.main import main
from lstm_optax.heap import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
if sys.argv[1] == "command":
    assert main(["train", "--text", "no such file"]) == 2
C = ctypes.CDLL(None)
C.malloc.restype = ctypes.c_void_p
meet = threading.Barrier(8)
threads = [threading.Thread(target=lambda: (meet.wait(), C.malloc(1000))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
C.malloc_stats()  # writes a paragraph for each heap
"""


@pytest.mark.skipif(not hasattr(C, "mallopt"), reason="no glibc")
@pytest.mark.parametrize("how, most", [("shared", 1), ("command", 2), ("apart", 99)])
def test_threads_allocate_from_shared_heap(how, most):
    """The second heap of the command is that of the thread that waits for signals."""
    command = [sys.executable, "-c", HEAPS, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    heaps = done.stderr.count("Arena ")
    assert heaps <= most and (how != "apart" or heaps > 2), done.stderr


def test_nothing_happens_without_glibc(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_freed_memory()
    share_one_heap()
