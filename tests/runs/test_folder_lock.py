"""The lock of a folder: who is refused, what frees it, and what is left of it."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.folder_lock import LOCK_FILE, hold_folder

HOLDER = """
import os, subprocess, sys
from pathlib import Path
from lstm_optax.runs.folder_lock import hold_folder
CHILD = "print('held', flush=True); import sys; sys.stdin.read()"
with hold_folder(Path(sys.argv[1])):
    kind = sys.argv[2]
    if kind == "fork" and os.fork():
        os.wait()
    elif kind == "exec":
        subprocess.run([sys.executable, "-c", CHILD])
    else:
        exec(CHILD)
"""


@contextmanager
def other_process(folder: Path, child: str = "none"):
    """A process that holds a folder, and whose child, if it has one, has started."""
    command = [sys.executable, "-c", HOLDER, str(folder), child]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.stdin.close()  # ends the process, and its child
            process.kill()
            process.wait(timeout=10)
            process.stdout.read()  # returns when the child has ended


def test_second_process_is_admitted(tmp_path):
    folder = tmp_path / "run"
    with other_process(folder) as process:
        message = (
            rf"^{folder} is in use by process {process.pid} on {re.escape(socket.gethostname())}, "
            r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: wait until it ends, or choose another folder$"
        )
        with pytest.raises(OptionError, match=message), hold_folder(folder):
            pytest.fail("two processes hold one folder")
        assert (folder / LOCK_FILE).exists()
    with hold_folder(folder):
        pass


@pytest.mark.parametrize("child", ["none", "fork", "exec"])
def test_killed_process_keeps_folder(tmp_path, child):
    """Also while a child of the killed process lives."""
    with other_process(tmp_path, child) as process:
        with pytest.raises(OptionError, match="is in use"), hold_folder(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        with hold_folder(tmp_path):
            assert f'"pid": {os.getpid()},' in (tmp_path / LOCK_FILE).read_text()


def test_same_thread_may_hold_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hold_folder(Path("run")), hold_folder(tmp_path / "run"):
        pass
    with hold_folder(tmp_path / "run"):
        with hold_folder(tmp_path / "run"):
            pass
        assert refused_in_a_thread(tmp_path / "run")
    assert not refused_in_a_thread(tmp_path / "run")


def refused_in_a_thread(folder: Path) -> bool:
    found = []

    def hold():
        try:
            with hold_folder(folder):
                found.append(False)
        except OptionError as error:
            assert f"process {os.getpid()} on" in str(error)
            found.append(True)

    thread = Thread(target=hold)
    thread.start()
    thread.join(timeout=10)
    return found[0]


def test_new_folder_is_left_behind(tmp_path):
    with pytest.raises(KeyError), hold_folder(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with hold_folder(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == []
    with hold_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {LOCK_FILE, "file"}


def test_failed_start_leaves_its_lock(tmp_path):
    """In a folder with other files; a lock that was there before stays."""
    (tmp_path / "file").touch()
    for expected in ({"file"}, {"file", LOCK_FILE}):
        with pytest.raises(KeyError), hold_folder(tmp_path):
            with hold_folder(tmp_path):
                pass
            raise KeyError
        assert {path.name for path in tmp_path.iterdir()} == expected
        (tmp_path / LOCK_FILE).touch()


def test_inner_hold_frees_the_outer(tmp_path):
    """A hold inside another one in an empty folder neither unlocks nor removes the lock."""
    with hold_folder(tmp_path / "run"):
        with hold_folder(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK_FILE).exists()
        assert refused_in_a_thread(tmp_path / "run")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks(tmp_path, monkeypatch, number):
    fail_to_lock(monkeypatch, number)
    messages = []
    with hold_folder(tmp_path, warn=messages.append):
        pass
    why = os.strerror(number)
    assert messages == [f"{tmp_path} cannot be locked ({why}): let only one process write to it"]
    with pytest.warns(UserWarning, match="cannot be locked"), hold_folder(tmp_path):
        pass


def test_other_error_of_the_lock_is_hidden(tmp_path, monkeypatch):
    fail_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), hold_folder(tmp_path / "run"):
        pytest.fail("an error of the disk counts as a lock")


def fail_to_lock(monkeypatch, number: int) -> None:
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_lock_through_a_link(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(target)
    with pytest.raises(OptionError, match=r"run/\.lock is a symbolic link, not a lock: remove it"):
        with hold_folder(tmp_path / "run"):
            pass
    assert target.read_text() == "mine"


def test_holder_without_a_name(tmp_path):
    with other_process(tmp_path):
        for content in ("", "nonsense", ' {"pid": 1}', " []"):
            (tmp_path / LOCK_FILE).write_text(content)
            with pytest.raises(OptionError, match="is in use by another process: wait"):
                with hold_folder(tmp_path, wait=0):
                    pass


def test_hold_waits_for_a_while(tmp_path):
    with other_process(tmp_path) as process:
        process.stdin.close()
        with hold_folder(tmp_path, wait=10):
            pass
