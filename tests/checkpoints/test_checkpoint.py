"""Checkpoints: saved whole, verified, restored; damage and invalid arguments are rejected."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from plain import plain_for

import lstm_optax as lo


def state_with(value: float):
    _, state = toy.start()
    return state._replace(params={"leak": jnp.float32(value), "gain": jnp.arange(3.0)})


def test_restore_keeps_average_and_trigger(tmp_path):
    """So a resumed run continues averaging, which test_loop checks."""
    optimizer = lo.guard(lo.triggered_average(toy.OPTIMIZER, nonmonotone=2))
    step, state = toy.start(optimizer)
    for position, loss in enumerate((3.0, 2.0, float("nan"), 4.0, 5.0)):
        state, _ = step(state, toy.batches(position))
        state = state._replace(opt_state=lo.report_validation_loss(state.opt_state, loss))
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(5, state)
    _, restored, _ = checkpoints.restore(toy.start(optimizer)[1])
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    (trigger,) = lo.find_states(restored, lo.transforms.TriggeredAverageState)
    assert trigger.triggered and int(trigger.results) == 5


@pytest.fixture
def saved(tmp_path) -> lo.Checkpoints:
    checkpoints = lo.Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        checkpoints.save(step, state_with(step))
    checkpoints.wait()
    return checkpoints


def damage(checkpoints: lo.Checkpoints, step: int) -> None:
    """Flip one bit in the largest file."""
    files = [p for p in (checkpoints.folder / str(step)).rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_restore_returns_saved_state(saved):
    step, state, damaged = saved.restore(state_with(0))
    assert (step, damaged) == (3, [])
    chex.assert_trees_all_equal(state, state_with(3))
    assert jax.tree.structure(state) == jax.tree.structure(state_with(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, state_with(3))


def test_save_keeps_newest_checkpoints(saved):
    assert saved.steps() == [2, 3]
    assert {p.name for p in saved.folder.iterdir()} == {"2", "3", "2.sha256", "3.sha256"}


def test_save_keeps_named_checkpoint(saved):
    saved.save(4, state_with(4), keep=[2])
    saved.save(5, state_with(5), keep=[2])
    assert saved.steps() == [2, 4, 5]
    assert saved.restore(state_with(0), prefer=2)[0] == 2
    assert saved.restore(state_with(0), prefer=1)[0] == 5


@pytest.mark.parametrize("keep", [2, 2.5, [2.5], [-1]])
def test_save_rejects_invalid_keep(saved, keep):
    with pytest.raises(ValueError, match="keep is "):
        saved.save(4, state_with(4), keep=keep)
    assert saved.steps() == [2, 3]


def test_save_deletes_later_checkpoints(saved):
    """Otherwise they would be the newest, and the one just written would be deleted."""
    saved.save(1, state_with(1))
    assert saved.steps() == [1]
    saved.save(2, state_with(2))
    assert saved.steps() == [1, 2]


def test_flipped_bit_is_detected(saved):
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


def test_restore_passes_over_damaged_checkpoint(saved):
    damage(saved, 3)
    step, state, damaged = saved.restore(state_with(0))
    assert (step, damaged, float(state.params["leak"])) == (2, [3], 2.0)
    saved.save(3, state_with(33))
    assert saved.restore(state_with(0))[0] == 3


@pytest.mark.parametrize("how", ["missing", "extra", "manifest"])
def test_missing_or_extra_file_is_detected(saved, how):
    files = [p for p in (saved.folder / "3").rglob("*") if p.is_file()]
    if how == "missing":
        files[0].unlink()
    elif how == "extra":
        (saved.folder / "3" / "unknown_file").write_text("")
    else:
        (saved.folder / "3.sha256").write_text("nonsense")
    assert saved.restore(state_with(0))[0] == 2


def test_checkpoint_without_manifest_is_ignored(saved):
    (saved.folder / "3.sha256").unlink()
    assert saved.steps() == [2]


def test_restore_without_whole_checkpoint_raises(saved, tmp_path):
    damage(saved, 2)
    damage(saved, 3)
    with pytest.raises(lo.CheckpointError, match=r"is damaged \(steps 2, 3\)"):
        saved.restore(state_with(0))
    with pytest.raises(lo.CheckpointError, match="there is no checkpoint in"):
        lo.Checkpoints(tmp_path / "nothing").restore(state_with(0))


def test_failed_save_keeps_other_checkpoints(saved, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lstm_optax.checkpoints.checkpoint_files.write_atomically", disk_full)
    saved.save(4, state_with(4))
    with pytest.raises(lo.CheckpointError, match="No space left"):
        saved.wait()
    assert saved.steps() == [2, 3] and not (saved.folder / "4").exists()
    assert saved.restore(state_with(0))[0] == 3


def test_full_disk_is_detected_before_writing(saved, monkeypatch):
    """Otherwise Orbax fails halfway, and its threads print tracebacks."""
    usage = shutil.disk_usage(saved.folder)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", None)
    with pytest.raises(lo.CheckpointError, match="No space left on device"):
        saved.save(3, state_with(33))
    assert saved.steps() == [2, 3] and saved.is_whole(3)


def test_save_deletes_leftovers_of_killed_save(saved):
    (saved.folder / "4.orbax-checkpoint-tmp").mkdir()
    (saved.folder / "4.sha256.0123456789abcdef.partial").touch()
    saved.save(4, state_with(4))
    saved.wait()
    assert not [*saved.folder.glob("*tmp*"), *saved.folder.glob("*partial")]


def test_sha256sum_reads_manifest(saved):
    check = subprocess.run(["sha256sum", "--check", "3.sha256"], cwd=saved.folder, text=True)
    assert check.returncode == 0
    damage(saved, 3)
    check = subprocess.run(
        ["sha256sum", "--check", "3.sha256"], cwd=saved.folder, capture_output=True
    )
    assert check.returncode == 1


@pytest.mark.parametrize("prefer", ["3", 2.5, -1, True])
def test_restore_rejects_invalid_prefer(tmp_path, prefer):
    with pytest.raises(ValueError, match="prefer is .*, but must be a whole number"):
        lo.Checkpoints(tmp_path).restore({}, prefer=prefer)


def test_checkpoints_reject_keep_below_one():
    with pytest.raises(ValueError, match="keep is 0"):
        lo.Checkpoints(Path("x"), keep=0)


NAMES = ["a[1]", "a[b", "*", "a?b", "{a,b}", "gs:", " a ", "new\nline", "bad\udcff", "~", "ü%20#"]


@pytest.mark.parametrize("name", plain_for(NAMES, NAMES[::4]), ids=ascii)
def test_folder_with_special_name_is_whole(tmp_path, name):
    checkpoints = lo.Checkpoints(tmp_path / name / "checkpoints", keep=1)
    for step in (1, 2):
        checkpoints.save(step, state_with(step))
    assert checkpoints.steps() == [2] and checkpoints.is_whole(2)
    assert {p.name for p in checkpoints.folder.iterdir()} == {"2", "2.sha256"}
    chex.assert_trees_all_equal(checkpoints.restore(state_with(0))[1], state_with(2))


@pytest.mark.parametrize("name", ["a[1]", "gs:", "bad\udcff"], ids=ascii)
def test_read_params_from_special_folder_name(tmp_path, name):
    lo.Checkpoints(tmp_path / name).save(1, state_with(1))
    chex.assert_trees_all_equal(lo.read_params(tmp_path / name).params, state_with(1).params)


def test_linked_and_relative_folders_are_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("link", "relative/../here", "~/runs"):
        checkpoints = lo.Checkpoints(Path(name))
        checkpoints.save(1, state_with(1))
        chex.assert_trees_all_equal(checkpoints.restore(state_with(0))[1], state_with(1))
    assert lo.Checkpoints(tmp_path / "real").is_whole(1)


def test_unlinkable_path_is_rejected_before_writing(tmp_path, monkeypatch):
    (tmp_path / "odd[1]").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "odd[1]"))
    checkpoints = lo.Checkpoints(tmp_path / "a[1]")
    checkpoints.save(1, state_with(1))
    with pytest.raises(lo.CheckpointError, match="set TMPDIR"):
        checkpoints.wait()
    assert not list((tmp_path / "a[1]").iterdir()) and not list((tmp_path / "odd[1]").iterdir())


def find_no_files(*_, **__):
    """Replace Orbax's merge of the files of each process by one that finds nothing."""

    async def nothing():
        return None

    return nothing()


def test_checkpoint_without_arrays_gets_no_manifest(saved, monkeypatch):
    name = "orbax.checkpoint._src.serialization.ocdbt_utils.merge_ocdbt_per_process_files"
    monkeypatch.setattr(name, find_no_files)
    # one array only: with several, pending reads outlast Orbax's event loop
    one = {"w": jnp.ones(3)}
    saved.save(4, one)
    with pytest.raises(lo.CheckpointError, match="cannot be read back"):
        saved.wait()
    assert saved.steps() == [2, 3] and not (saved.folder / "4").exists()


@pytest.mark.parametrize("step", [5.0, -1, True, "5", None, 2.5, 10**18, np.float32(5)])
def test_save_rejects_invalid_step(saved, step):
    with pytest.raises(ValueError, match="step is .*, but must be"):
        saved.save(step, state_with(5))
    assert saved.steps() == [2, 3]
    saved.save(np.int64(5), state_with(5))
    assert saved.steps() == [3, 5]


@pytest.mark.parametrize("name", ["²³", "007", "-1", "1.0", "9" * 200, "٣"])
def test_unknown_manifest_names_are_ignored(saved, name):
    (saved.folder / f"{name}.sha256").write_text("")
    assert saved.steps() == [2, 3]
    assert saved.restore(state_with(0))[0] == 3


def mixed_tree():
    return {
        "array": np.arange(3.0),
        "number": 2.5,
        "count": 7,
        "flag": True,
        "scalar": np.float64(0.1),
        "int": np.int8(3),
        "jax": jnp.arange(2, dtype=jnp.bfloat16),
        "key": jax.random.key(3),
        "complex": 1 + 2j,
        "none": None,
        "nested": [(np.ones((2, 1), bool),), {}],
    }


def test_restore_keeps_numpy_and_python_types(tmp_path):
    checkpoints, tree = lo.Checkpoints(tmp_path), mixed_tree()
    checkpoints.save(0, tree)
    like = mixed_tree() | {"number": 0.0, "count": 0, "flag": False, "scalar": np.float64(0)}
    like |= {"array": np.zeros(3), "nested": [(np.zeros((2, 1), bool),), {}]}
    _, restored, _ = checkpoints.restore(like)
    key = restored.pop("key")
    assert (jax.random.key_data(key) == jax.random.key_data(tree.pop("key"))).all()
    chex.assert_trees_all_equal_structs(restored, tree)
    chex.assert_trees_all_equal(restored, tree)
    types = jax.tree.map(lambda a, b: type(a) is type(b), restored, tree)
    assert jax.tree.all(types) and restored["array"].dtype == np.float64


def test_restore_accepts_abstract_state(saved):
    like = jax.eval_shape(lambda: state_with(0))
    chex.assert_trees_all_equal(saved.restore(like)[1], state_with(3))


def test_restore_names_leaves_that_differ(saved):
    like = state_with(0)._replace(params={"leak": jnp.float16(0), "gain": jnp.zeros(4)})
    message = (
        r"with float32\[3\] at params.gain, expected float32\[4\]; float32\[\] at params.leak, "
    )
    with pytest.raises(lo.CheckpointError, match=message + r"expected float16\[\]: restore into"):
        saved.restore(like, cast=True)
    like = state_with(0)._replace(params={"gain": jnp.zeros(3), "new": jnp.zeros(2)})
    with pytest.raises(lo.CheckpointError, match=r"nothing at params.new, .*; .* at params.leak, "):
        saved.restore(like)
    other = toy.start(lo.momentum_sgd(0.1))[1]
    with pytest.raises(lo.CheckpointError, match="opt_state.*same model and optimizer$"):
        saved.restore(other._replace(params=state_with(0).params))


def test_restore_casts_only_with_cast(saved):
    large = state_with(70000.5)
    saved.save(4, large)
    half = large._replace(params=jax.tree.map(lambda x: x.astype(jnp.float16), large.params))
    with pytest.raises(lo.CheckpointError, match=r"expected float16.* or convert .* cast=True"):
        saved.restore(half)
    _, state, _ = saved.restore(half, cast=True)
    assert state.params["gain"].dtype == jnp.float16 and np.isinf(state.params["leak"])
    numpy = jax.device_get(large)
    double = numpy._replace(params=jax.tree.map(np.float64, numpy.params))
    assert saved.restore(double, cast=True)[1].params["leak"] == np.float64(70000.5)


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, "a checkpoint holds a tree of arrays"),
        (np.ones(2), "a checkpoint holds a tree of arrays"),
        ({"a": {"b": "text"}}, "a.b is str, which a checkpoint cannot hold"),
        ({"a": object()}, "a is object"),
        ({"a": np.zeros((0, 2))}, r"a is float64\[0,2\]"),
        ({"a": np.array(["x"])}, "a is ndarray"),
        ({"a": 10**30}, "a is int"),
        ({"a": np.ones(2, np.longdouble)}, "a is ndarray"),
        ({"a.b": np.ones(2), "a": {"b": np.zeros(2)}}, "two leaves have one name"),
    ],
)
def test_save_rejects_unsupported_leaves(saved, state, message):
    with pytest.raises(ValueError, match=message):
        saved.save(3, state)
    assert saved.is_whole(3)
