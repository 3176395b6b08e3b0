"""Checkpoints are whole or refused."""

import shutil
import subprocess
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest
import toy

import lstm_optax as lo


def state_of(value: float):
    _, state = toy.start()
    return state._replace(params={"leak": jnp.float32(value), "gain": jnp.arange(3.0)})


def test_an_average_and_its_trigger_are_restored(tmp_path):
    """With it the run goes on averaging, as the test of the loop shows."""
    optimizer = lo.guard(lo.triggered_average(toy.OPTIMIZER, nonmonotone=2))
    step, state = toy.start(optimizer)
    for position, loss in enumerate((3.0, 2.0, float("nan"), 4.0, 5.0)):
        state, _ = step(state, toy.batches(position))
        state = state._replace(opt_state=lo.observe(state.opt_state, loss))
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(5, state)
    _, restored, _ = checkpoints.restore(toy.start(optimizer)[1])
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    (trigger,) = lo.find_states(restored, lo.TriggeredAverageState)
    assert trigger.triggered and int(trigger.results) == 5


@pytest.fixture
def saved(tmp_path) -> lo.Checkpoints:
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step))
    return checkpoints


def damage(checkpoints: lo.Checkpoints, step: int) -> None:
    """Flip one bit in the largest file."""
    files = [p for p in (checkpoints.folder / str(step)).rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_what_is_restored_is_what_was_saved(saved):
    step, state, damaged = saved.restore(state_of(0))
    assert (step, damaged) == (3, [])
    chex.assert_trees_all_equal(state, state_of(3))
    assert jax.tree.structure(state) == jax.tree.structure(state_of(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, state_of(3))


def test_only_the_newest_are_kept(saved):
    assert saved.steps() == [2, 3]
    assert {p.name for p in saved.folder.iterdir()} == {"2", "3", "2.sha256", "3.sha256"}


def test_a_spared_one_is_kept(saved):
    saved.save(4, state_of(4), spare=2)
    saved.save(5, state_of(5), spare=2)
    assert saved.steps() == [2, 4, 5]
    assert saved.restore(state_of(0), prefer=2)[0] == 2
    assert saved.restore(state_of(0), prefer=1)[0] == 5


def test_going_on_from_an_earlier_one_drops_the_later(saved):
    """Else they would count as the newest, and the one just written as too old."""
    saved.save(1, state_of(1))
    assert saved.steps() == [1]
    saved.save(2, state_of(2))
    assert saved.steps() == [1, 2]


def test_every_flipped_bit_is_noticed(saved):
    files = sorted(p for p in (saved.folder / "3").rglob("*") if p.is_file())
    assert len(files) > 3
    for path in files:
        whole = path.read_bytes()
        if not whole:
            continue
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert not saved.is_whole(3)
        path.write_bytes(whole)
    assert saved.is_whole(3)


def test_a_damaged_one_is_passed_over(saved):
    damage(saved, 3)
    step, state, damaged = saved.restore(state_of(0))
    assert (step, damaged, float(state.params["leak"])) == (2, [3], 2.0)
    saved.save(3, state_of(33))
    assert saved.restore(state_of(0))[0] == 3


@pytest.mark.parametrize("how", ["missing", "extra", "manifest"])
def test_missing_and_strange_files_are_noticed(saved, how):
    files = [p for p in (saved.folder / "3").rglob("*") if p.is_file()]
    if how == "missing":
        files[0].unlink()
    elif how == "extra":
        (saved.folder / "3" / "stranger").write_text("")
    else:
        (saved.folder / "3.sha256").write_text("nonsense")
    assert saved.restore(state_of(0))[0] == 2


def test_one_without_its_manifest_was_never_finished(saved):
    (saved.folder / "3.sha256").unlink()
    assert saved.steps() == [2]


def test_none_whole_is_an_error(saved, tmp_path):
    damage(saved, 2)
    damage(saved, 3)
    with pytest.raises(lo.CheckpointError, match=r"is damaged \(steps 2, 3\)"):
        saved.restore(state_of(0))
    with pytest.raises(lo.CheckpointError, match="there is no checkpoint in"):
        lo.Checkpoints(tmp_path / "nothing").restore(state_of(0))


def test_a_failed_save_leaves_the_others(saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lstm_optax.training.checkpoint._write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        saved.save(4, state_of(4))
    assert saved.steps() == [2, 3] and not (saved.folder / "4").exists()
    assert saved.restore(state_of(0))[0] == 3


def test_a_full_disk_is_noticed_before_anything_is_written(saved, monkeypatch):
    """Else Orbax fails halfway, and its threads print tracebacks."""
    usage = shutil.disk_usage(saved.folder)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", None)
    with pytest.raises(OSError, match="No space left on device"):
        saved.save(3, state_of(33))
    assert saved.steps() == [2, 3] and saved.is_whole(3)


def test_what_a_kill_left_behind_goes_with_its_step(saved):
    (saved.folder / "4.orbax-checkpoint-tmp").mkdir()
    saved.save(4, state_of(4))
    assert not list(saved.folder.glob("*tmp*"))


def test_manifests_are_what_sha256sum_reads(saved):
    check = subprocess.run(["sha256sum", "--check", "3.sha256"], cwd=saved.folder, text=True)
    assert check.returncode == 0
    damage(saved, 3)
    check = subprocess.run(
        ["sha256sum", "--check", "3.sha256"], cwd=saved.folder, capture_output=True
    )
    assert check.returncode == 1


def test_keep_below_one_is_named():
    with pytest.raises(ValueError, match="keep is 0"):
        lo.Checkpoints(Path("x"), keep=0)
