"""Saving in the background: what `save` waits for, what fails when, and what a kill leaves."""

import errno
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from limits import free_descriptors, limited
from many_devices import first_devices
from plain import plain_for

import lstm_optax as lo
from lstm_optax.checkpoints.checkpoint_error import describe_failure
from lstm_optax.checkpoints.orbax_io import start_write
from lstm_optax.records import PARTIAL, write_atomically

MANIFEST = "lstm_optax.checkpoints.checkpoint_files.write_atomically"


def tree(value: float) -> dict:
    return {"params": {"w": jnp.full(4, value)}, "count": np.int32(value)}


@pytest.fixture
def saved(tmp_path) -> lo.Checkpoints:
    """Return the checkpoints of steps 1 and 2."""
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (1, 2):
        checkpoints.save(step, tree(step))
    checkpoints.wait()
    return checkpoints


@pytest.fixture
def held(monkeypatch):
    """Hold every save before its manifest, until the event is set."""
    release = threading.Event()

    def write(path, text):
        assert release.wait(60)
        write_atomically(path, text)

    monkeypatch.setattr(MANIFEST, write)
    yield release
    release.set()


def fail(number: int, *_):
    raise OSError(number, os.strerror(number))


def test_save_returns_before_it_is_complete(saved, held):
    saved.save(3, tree(3))
    assert not (saved.folder / "3.sha256").exists()
    held.set()
    saved.wait()
    assert (saved.folder / "3.sha256").exists()


def test_readers_wait_for_save(saved, held):
    saved.save(3, tree(3))
    threading.Timer(0.1, held.set).start()
    assert lo.Checkpoints(saved.folder).steps() == [1, 2, 3]
    saved.save(4, tree(4))
    assert saved.is_whole(4) and lo.read_params(saved.folder).step == 4


def test_saves_leave_nothing_in_memory(tmp_path):
    """Lists and dictionaries are what a leak of descriptions of the arrays consists of."""
    checkpoints = lo.Checkpoints(tmp_path, keep=1)
    state = {f"array {i}": jnp.ones(3) for i in range(50)}

    def objects_after(first: int, end: int) -> int:
        for step in range(first, end):
            checkpoints.save(step, state)
        checkpoints.wait()
        gc.collect()
        return sum(isinstance(found, list | dict) for found in gc.get_objects())

    before = objects_after(1, 4)
    assert objects_after(4, 12) - before < 8 * len(state)


def test_later_changes_do_not_reach_checkpoint(tmp_path, monkeypatch):
    release = threading.Event()
    checkpoints = lo.Checkpoints(tmp_path)
    monkeypatch.setattr(
        "lstm_optax.checkpoints.saving.start_write",
        lambda *args: release.wait(60) and start_write(*args),
    )
    state = {"donated": jnp.arange(100_000.0), "changed": np.zeros(3), "key": jax.random.key(1)}
    expected = {
        "donated": np.arange(100_000, dtype=np.float32),
        "changed": np.zeros(3),
        "key": np.array(jax.random.key_data(jax.random.key(1))),
    }
    checkpoints.save(1, state)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    for _ in range(5):
        state["donated"] = add(state["donated"])
    state["changed"] += 1
    release.set()
    _, restored, _ = checkpoints.restore(state)
    restored["key"] = jax.random.key_data(restored["key"])
    chex.assert_trees_all_equal(restored, expected)


@pytest.mark.parametrize("where", ["wait", "save", "exit"])
def test_failed_save_is_raised_once(saved, monkeypatch, where):
    with monkeypatch.context() as patch:
        patch.setattr(MANIFEST, partial(fail, errno.ENOSPC))
        saved.save(3, tree(3))
        saved.steps()  # waits, and leaves the error to the next save, wait or exit
    with pytest.raises(lo.CheckpointError) as failure:
        if where == "exit":
            saved.__exit__(None, None, None)
        else:
            saved.wait() if where == "wait" else saved.save(4, tree(4))
    assert str(failure.value) == (
        f"cannot write the checkpoint {saved.folder / '3'}: the disk is full (No space left on "
        "device), free some space; the checkpoints of steps 1, 2 remain"
    )
    assert failure.value.kept == [1, 2]
    saved.wait()
    saved.save(5, tree(5))
    assert saved.steps() == [1, 2, 5]


def test_exception_is_kept_after_failed_save(saved, monkeypatch):
    monkeypatch.setattr(MANIFEST, partial(fail, errno.ENOSPC))
    with pytest.raises(KeyError) as error, saved:
        saved.save(3, tree(3))
        raise KeyError("training")
    assert "the disk is full" in error.value.__notes__[0]


def test_failed_first_save_says_nothing_remains(tmp_path, monkeypatch):
    monkeypatch.setattr(MANIFEST, partial(fail, errno.EDQUOT))
    checkpoints = lo.Checkpoints(tmp_path)
    checkpoints.save(1, tree(1))
    with pytest.raises(lo.CheckpointError, match="quota is used up.*there is no other checkpoint$"):
        checkpoints.wait()


def test_failed_deletion_keeps_new_checkpoint(saved, monkeypatch):
    saved.keep = 1
    delete = saved._files.delete
    monkeypatch.setattr(
        saved._files, "delete", lambda step: fail(errno.EPERM) if step == 1 else delete(step)
    )
    saved.save(3, tree(3))
    with pytest.raises(lo.CheckpointError, match="3: Operation not permitted; .* steps 1, 2 rem"):
        saved.wait()
    assert saved.is_whole(3)


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(28, "No space left on device"), "the disk is full (No space left on device), fr"),
        (OSError(122, "Disk quota exceeded"), "the disk quota is used up (Disk quota exceeded), "),
        (OSError(27, "File too large"), "a file exceeds the limit on file sizes (File too large)"),
        (OSError(24, "x"), "this process has too many open files (Too many open files), raise the"),
        (ValueError("… File too large [os_error_code='27'] [x='…"), "a file exceeds the limit on"),
        (ValueError("RESOURCE_EXHAUSTED: … [os_error_code='24'] […"), "this process has too many"),
        (ValueError("… [os_error_code='5'] […"), "Input/output error"),
        (OSError(13, "Permission denied", "x"), "Permission denied"),
        (RuntimeError("first line\nsecond"), "RuntimeError: first line"),
        (AssertionError(), "AssertionError"),
    ],
    ids=str,
)
def test_failure_is_described(error, text):
    assert describe_failure(error).startswith(text)
    outer = RuntimeError("Orbax")
    outer.__cause__ = error
    if "os_error_code" in str(error) or isinstance(error, OSError):
        assert describe_failure(outer)[:10] == text[:10]


def test_file_size_limit_is_named(saved, key):
    with limited("RLIMIT_FSIZE", 2**20):
        saved.save(3, {"w": jax.random.normal(key, (2**20,))})
        with pytest.raises(lo.CheckpointError, match="exceeds the limit on file .* 1, 2 remain"):
            saved.wait()
    assert saved.steps() == [1, 2] and saved.restore(tree(0))[0] == 2


def test_open_files_are_not_damage(saved):
    with limited("RLIMIT_NOFILE", 0), pytest.raises(lo.CheckpointError, match="open files"):
        saved.is_whole(2)


@pytest.mark.parametrize("free", [0, 1, 5, 9])
def test_save_needs_free_descriptors(saved, free):
    with free_descriptors(free):
        with pytest.raises(lo.CheckpointError) as failure:
            saved.save(3, tree(3))
        saved.wait()
    remain = "the checkpoints of steps 1, 2 remain" if free else "the other checkpoints are unch"
    assert "this process has too many open files" in str(failure.value)
    assert f"`ulimit -n 4096`; {remain}" in str(failure.value)
    assert failure.value.kept == ([1, 2] if free else None)
    saved.save(3, tree(3))
    assert saved.steps() == [1, 2, 3]


SAVE_WITHOUT_DESCRIPTORS = """
import sys
from unittest.mock import patch
import numpy as np
from limits import free_descriptors
import lstm_optax as lo

saved = lo.Checkpoints(sys.argv[1])
saved.save(1, {"w": np.zeros(4)})
saved.wait()
for free in range(1, 10):
    with free_descriptors(free), patch("lstm_optax.checkpoints.saving.FREE_FILES", 0):
        try:
            saved.save(2, {"w": np.ones(4)})
            saved.wait()
        except lo.CheckpointError as error:
            print(error)
print(saved.restore({"w": np.zeros(4)})[0])
"""


@pytest.mark.slow
def test_orbax_without_descriptors_ends(tmp_path):
    command = [sys.executable, "-c", SAVE_WITHOUT_DESCRIPTORS, tmp_path]
    here = Path(__file__).parent  # of `limits`
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *errors, last = done.stdout.splitlines()
    assert all(error.startswith("cannot write the checkpoint") for error in errors), errors
    assert sum("too many open files" in error for error in errors) >= 3, errors
    assert int(last) in (1, 2)


def test_keep_every_keeps_multiples(tmp_path):
    checkpoints = lo.Checkpoints(tmp_path, keep=1, keep_every=3)
    for step in range(1, 8):
        checkpoints.save(step, tree(step), keep=[2])
    assert checkpoints.steps() == [2, 3, 6, 7]
    for keep_every in (0, 1.5, True):
        with pytest.raises(ValueError, match="keep_every is .*, but must be a whole number of at"):
            lo.Checkpoints(tmp_path, keep_every=keep_every)


def killed(*_):
    """Stop the save where it is, and clean nothing up."""
    raise SystemExit


@pytest.mark.parametrize("place", ["saving.check_written", "checkpoint_files.write_atomically"])
def test_killed_save_leaves_others_whole(saved, monkeypatch, place):
    with monkeypatch.context() as patch:
        patch.setattr(f"lstm_optax.checkpoints.{place}", killed)
        patch.setattr(saved._files, "discard", lambda step: None)
        saved.save(3, tree(3))
        saved._saving.join()
    assert (saved.folder / "3").exists()
    again = lo.Checkpoints(saved.folder)
    with pytest.raises(lo.CheckpointError):
        again.wait()
    assert again.steps() == [1, 2] and again.restore(tree(0))[0] == 2
    again.save(3, tree(3))
    chex.assert_trees_all_equal(again.restore(tree(0))[1], tree(3))


def test_second_save_of_step_replaces_first(saved):
    for value in (3, 4, 5):
        saved.save(2, tree(value))
        assert saved.steps() == [1, 2] and saved.is_whole(2)
        chex.assert_trees_all_equal(saved.restore(tree(0))[1], tree(value))
        chex.assert_trees_all_equal(lo.read_params(saved.folder).params, tree(value)["params"])
        assert len(list(saved.folder.iterdir())) == 4


@pytest.mark.parametrize("place", ["saving.check_written", "checkpoint_files.write_atomically"])
@pytest.mark.parametrize("end", [partial(fail, errno.ENOSPC), killed], ids=["fails", "is killed"])
@pytest.mark.parametrize("earlier", [0, 1])
def test_first_copy_stays_until_second_is_whole(saved, monkeypatch, place, end, earlier):
    for _ in range(earlier):
        saved.save(2, tree(2))
    saved.wait()
    with monkeypatch.context() as patch:
        patch.setattr(f"lstm_optax.checkpoints.{place}", end)
        if end is killed:
            patch.setattr(saved._files, "discard", lambda step: None)
        saved.save(2, tree(3))
        with pytest.raises(lo.CheckpointError) as failure:
            saved.wait()
    assert failure.value.kept == [1, 2]
    left = [path.name for path in saved.folder.iterdir() if path.is_dir()]
    assert len(left) == (3 if end is killed else 2)
    step, state, damaged = saved.restore(tree(0))
    assert (step, damaged) == (2, [])
    chex.assert_trees_all_equal(state, tree(2))
    saved.save(2, tree(4))
    chex.assert_trees_all_equal(saved.restore(tree(0))[1], tree(4))


def sharded(state, count: int):
    """Return the state on `count` devices, with the leaves of two rows or more split by rows."""
    mesh = Mesh(np.array(first_devices(count)), ("rows",))

    def place(leaf):
        split = np.ndim(leaf) and np.shape(leaf)[0] % count == 0
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*["rows"] if split else [])))

    return jax.tree.map(place, state)


@pytest.mark.parametrize("counts", plain_for([(1, 2, 4, 1), (8, 3, 1)], [(1, 2, 4, 1)]))
def test_restore_changes_sharding_of_optimizer_state(tmp_path, key, counts):
    params = {"w": jax.random.normal(key, (8, 3)), "b": jnp.arange(4.0)}
    optimizer = lo.nadam(0.1)
    opt_state = optimizer.update(params, optimizer.init(params), params)[1]
    expected = jax.device_get((params, opt_state))
    state = sharded((params, opt_state), counts[0])
    for step, count in enumerate(counts[1:]):
        with lo.Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, state)
        like = sharded(jax.tree.map(jnp.zeros_like, (params, opt_state)), count)
        _, state, _ = checkpoints.restore(like)
        chex.assert_trees_all_equal(jax.device_get(state), expected)
        for leaf, other in zip(*map(jax.tree.leaves, (state, like)), strict=True):
            assert leaf.sharding == other.sharding
    assert lo.Checkpoints(tmp_path).restore(expected)[0] == len(counts) - 2


SAVE_FOREVER = """
import sys
import jax.numpy as jnp
import lstm_optax as lo
checkpoints = lo.Checkpoints(sys.argv[1], keep=1)
for step in range(10**6):
    checkpoints.save(step, {"w": jnp.full(300_000, float(step)), "step": step})
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_process_leaves_whole_checkpoint(tmp_path, seed):
    rng = np.random.default_rng(seed)
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 2:
                break
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        printed = [2, *map(int, process.stdout.read().split())]
    step, state, damaged = lo.Checkpoints(tmp_path).restore({"w": jnp.zeros(300_000), "step": 0})
    assert damaged == [] and printed[-1] - 2 <= step == state["step"]
    chex.assert_trees_all_equal(state["w"], jnp.full(300_000, float(step)))
    known = {f"{s}{end}" for s in lo.Checkpoints(tmp_path).steps() for end in ("", ".sha256")}
    others = {path.name for path in tmp_path.iterdir()} - known
    leftover = re.compile(rf"(\d+)(\.orbax-checkpoint-tmp|\.sha256{PARTIAL})?")
    names = [leftover.fullmatch(name) for name in others]
    assert all(name and int(name[1]) <= printed[-1] + 1 for name in names), others


ENDS = {
    "end": "",
    "exception": "raise KeyError('the training')",
    "exit": "sys.exit(3)",
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_end_of_program_waits_for_save(tmp_path, end):
    script = SAVE_FOREVER.replace("10**6", "2") + ENDS[end]
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == {"end": 0, "exception": 1, "exit": 3}[end], done.stderr
    checkpoints = lo.Checkpoints(Path(tmp_path))
    assert checkpoints.steps() == [1] and checkpoints.is_whole(1)


def test_save_copies_the_state_once(tmp_path):
    large = jnp.ones((1000, 2000))
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints")
    tracemalloc.start()
    try:
        checkpoints.save(1, {"w": large})
        checkpoints.wait()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert large.nbytes < peak < 1.5 * large.nbytes
