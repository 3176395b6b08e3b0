"""Checkpoints that several processes write together, and that any number of processes restores."""

import re
import time

import chex
import numpy as np
import pytest
from processes import CONNECT, run_processes, started_processes

import lstm_optax as lo

VALUES = """
def values(step):
    rng = np.random.default_rng(step)
    return {
        "params": {"w": rng.normal(size=(8, 3)), "b": rng.normal(size=5)},
        "mu": rng.normal(size=8).astype(np.float32),
        "local": rng.normal(size=2).astype(np.float32),
        "count": np.int32(step),
    }
"""
exec(VALUES)

# where a process writes its part of the arrays, and where it waits for the others afterwards
WRITE = "orbax.checkpoint._src.serialization.jax_array_handlers._async_serialize_replica_slices"
BARRIER = "lstm_optax.checkpoints.agreement.Agreement.__call__"

BEGINNING = (
    CONNECT
    + VALUES.replace("def values", "import numpy as np\n\ndef values")
    + """
import shutil, sys
from unittest.mock import patch
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import lstm_optax as lo
from lstm_optax.checkpoints import checkpoint_files

jax.config.update("jax_enable_x64", True)
folder, first = sys.argv[1], int(sys.argv[2])
rank = jax.process_index()
mesh = Mesh(np.array(jax.devices()), ("rows",))

def place(values):
    def shared(value, spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
    params = values["params"]
    return {
        "params": {"w": shared(params["w"], ["rows"]), "b": shared(params["b"], [])},
        "mu": shared(values["mu"], ["rows"]),
        "local": jax.numpy.asarray(values["local"]),
        "count": values["count"],
    }
"""
)

PROGRAM = (
    BEGINNING
    + """
def check(state, step):
    for leaf, value in zip(jax.tree.leaves(state), jax.tree.leaves(values(step)), strict=True):
        shards = leaf.addressable_shards if isinstance(leaf, jax.Array) else ()
        for shard in shards:
            assert np.array_equal(shard.data, value[shard.index])
        assert shards or np.array_equal(leaf, value)

def failure(act):
    try:
        act()
    except lo.CheckpointError as error:
        print("failure", error)
    else:
        raise AssertionError("no failure")

checkpoints = lo.Checkpoints(folder, keep=3)
like = place(values(0))
step, state, _ = checkpoints.restore(like)  # of another number of processes
assert step == first
check(state, first)

add = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
state = place(values(first + 1))
checkpoints.save(first + 1, state)
for _ in range(3):
    state = add(state)  # the saved arrays are donated
checkpoints.save(first + 2, place(values(first + 2)))
checkpoints.wait()
assert checkpoints.steps() == [first, first + 1, first + 2]
for step in (first + 1, first + 2):
    assert checkpoints.is_whole(step)
    restored, state, damaged = checkpoints.restore(like, prefer=step)
    assert (restored, damaged) == (step, [])
    check(state, step)

def full(*_, **__):
    raise OSError(28, "No space left on device")

# the last process cannot write, then the first cannot write the manifest, then it sees a full disk
if rank == jax.process_count() - 1:
    with patch(sys.argv[3], full):
        checkpoints.save(first + 3, like)
        failure(checkpoints.wait)
else:
    checkpoints.save(first + 3, like)
    failure(checkpoints.wait)
with patch.object(checkpoint_files, "write_atomically", full):
    checkpoints.save(first + 3, like)
    failure(checkpoints.wait)
with patch.object(shutil, "disk_usage", full):
    failure(lambda: checkpoints.save(first + 3, like))
failure(lambda: lo.Checkpoints(folder + "/none").restore(like))
checkpoints.save(first + 3, place(values(first + 3)))
checkpoints.wait()
print("done")
"""
)


KILLED = (
    BEGINNING
    + """
import os, signal
from contextlib import nullcontext
moment, dead = sys.argv[3], int(sys.argv[4])
checkpoints = lo.Checkpoints(folder)
checkpoints.save(first, place(values(first)))
checkpoints.wait()
print("saved", flush=True)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

with patch(moment, die) if rank == dead else nullcontext():
    checkpoints.save(first + 1, place(values(first + 1)))
    checkpoints.wait()
print("not ended")
"""
)


def run_program(folder, count: int, first: int) -> None:
    """Save three checkpoints after `first` in several processes, and check what each reports."""
    results = run_processes(PROGRAM, count, folder, first, WRITE, timeout=120)
    for result in results:
        assert result.returncode == 0 and result.stdout.endswith("done\n"), result.stdout
        failures = re.findall(r"^failure (.*)$", result.stdout, re.M)
        full = "the disk is full (No space left on device), free some space"
        remain = f"the checkpoints of steps {first}, {first + 1}, {first + 2} remain"
        target = f"cannot write the checkpoint {folder}/{first + 3}: "
        assert failures == [
            f"{target}process {count - 1}: {full}; {remain}",
            f"{target}process 0: {full}; {remain}",
            f"{target}{full}; {remain}",
            f"there is no checkpoint in {folder}/none",
        ]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2,), (4, 2)])
def test_processes_save_and_restore_together(tmp_path, counts):
    checkpoints, first = lo.Checkpoints(tmp_path / "run", keep=3), 1
    checkpoints.save(first, values(first))  # noqa: F821
    checkpoints.wait()
    for count in counts:
        run_program(checkpoints.folder, count, first)
        first += 3
        assert checkpoints.steps() == [first - 2, first - 1, first]
        names = {path.name for path in checkpoints.folder.iterdir()}
        assert names == {f"{s}{end}" for s in checkpoints.steps() for end in ("", ".sha256")}
        expected = values(first)  # noqa: F821
        step, state, damaged = checkpoints.restore(expected)
        assert (step, damaged) == (first, [])
        chex.assert_trees_all_equal(state, expected)
        read = lo.read_params(checkpoints.folder)
        assert all(type(leaf) is np.ndarray for leaf in read.params.values())
        chex.assert_trees_all_equal(read.params, expected["params"])


@pytest.mark.slow
@pytest.mark.parametrize("moment", [WRITE, BARRIER])
@pytest.mark.parametrize("dead", [0, 1])
def test_process_dies_during_save(tmp_path, moment, dead):
    checkpoints, first = lo.Checkpoints(tmp_path / "run"), 1
    with started_processes(KILLED, 2, checkpoints.folder, first, moment, dead) as processes:
        end = time.monotonic() + 90
        for process, output in processes:
            assert process.wait(max(end - time.monotonic(), 0.1)) < 0, output.read_text()
            assert "saved" in output.read_text() and "not ended" not in output.read_text()
    assert checkpoints.steps() == [first]
    expected = values(first)  # noqa: F821
    step, state, damaged = checkpoints.restore(expected)
    assert (step, damaged) == (first, [])
    chex.assert_trees_all_equal(state, expected)
    run_program(checkpoints.folder, 2, first)
