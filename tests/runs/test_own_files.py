"""Files of a run and others in its folder: what is removed, what is kept, what is refused."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lstm_optax import TrainConfig
from lstm_optax.records import append_record, write_atomically
from lstm_optax.runs import OptionError, own_files
from lstm_optax.runs.new_folder import make_new_folder, remove_if_empty
from lstm_optax.runs.own_files import FILES, MANIFEST, owned_names, remove_leftovers
from lstm_optax.runs.run_folder import RunFolder

FACTS = {"text": {"name": "t", "sha256": "ab", "vocabulary": "ab"}}
TOKEN = "0123456789abcdef"


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file, None for folders, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Return a folder with all files of a run."""
    run = RunFolder(tmp_path / "run")
    run.create(overwrite=False)
    for name in FILES:
        (run.path / name).write_text(name)
    run.write_config(TrainConfig(), FACTS)
    for step in ("4", "8"):
        (run.checkpoints / step / "d").mkdir(parents=True)
        (run.checkpoints / step / "d" / "data").write_text("data")
        (run.checkpoints / f"{step}.sha256").write_text("")
    return run


FOREIGN = (
    "notes.txt",
    "config.json.bak",
    "config.json.partial",
    f"notes.txt.{TOKEN}.partial",
    "sub/config.json",
    "checkpoints/notes.txt",
    "checkpoints/008/data",
    "checkpoints/best/data",
    "checkpoints/8.md5",
    "checkpoints/1e3.sha256",
)


def test_overwrite_removes_foreign_file(run):
    for name in FOREIGN:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    left = run.create(overwrite=True)
    rest = {name: content for name, content in tree(run.path).items() if content is not None}
    assert rest.pop(MANIFEST) and rest == dict.fromkeys(FOREIGN, b"mine")
    outer = ["config.json.bak", "config.json.partial", "notes.txt", FOREIGN[3], "sub"]
    inner = ["008", "1e3.sha256", "8.md5", "best", "notes.txt"]
    assert left == [*outer, *(f"checkpoints/{name}" for name in inner)]


def test_overwrite_leaves_own_file(run):
    assert run.create(overwrite=True) == []
    assert list(tree(run.path)) == [MANIFEST] and run.files() == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", [*FILES, "checkpoints/model.ckpt", "checkpoints/8/data"])
def test_foreign_folder_is_emptied(tmp_path, name, overwrite):
    """The folder of another program, in which no run was started."""
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text('{"config": 1}')
    before, shown = tree(tmp_path), name.split("/")[0]
    with pytest.raises(OptionError) as error:
        RunFolder(tmp_path).create(overwrite=overwrite)
    assert str(error.value) == (
        f"{tmp_path} has files that no run wrote, under names of a run's files: {shown}; "
        "move them, or choose another folder with --run DIR"
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [*FILES, "checkpoints", "checkpoints/8", "checkpoints/8.sha256"])
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_link_is_written_through(run, tmp_path, name, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_text("mine")
    (tmp_path / "file").write_text("mine")
    place = run.path / name
    place.rename(tmp_path / "old")
    place.symlink_to(tmp_path / target)
    before = tree(tmp_path)
    message = re.escape(f"has files that no run wrote, under names of a run's files: {name}; move")
    for start in (run.reopen, lambda: run.create(overwrite=True)):
        with pytest.raises(OptionError, match=message):
            start()
    assert tree(tmp_path) == before and place.is_symlink()


def test_manifest_through_a_link(run, tmp_path):
    (run.path / MANIFEST).rename(tmp_path / "target")
    (run.path / MANIFEST).symlink_to(tmp_path / "target")
    with pytest.raises(OptionError, match=rf"names of a run's files: {re.escape(MANIFEST)}; move"):
        run.create(overwrite=True)


def test_link_appears_during_the_run(run, tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    run.records.path.unlink()
    run.records.path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        append_record(run.records.path, {"step": 1})
    for write in (run.records.write, lambda rows: run.write_config(TrainConfig(), FACTS)):
        write([])
    write_atomically(run.records.path, b"{}\n")
    assert not run.records.path.is_symlink() and target.read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "checkpoints/8"])
def test_wrong_kind_is_removed(run, name):
    """A folder in the place of a file, or the other way round."""
    place = run.path / name
    if place.is_dir():
        place.rename(run.path / "old")
        place.write_text("mine")
    else:
        place.unlink()
        place.mkdir()
    before = tree(run.path)
    with pytest.raises(OptionError, match=f"no run wrote, under names of a run's files: {name};"):
        run.create(overwrite=True)
    assert tree(run.path) == before


@pytest.mark.parametrize("content", ["", "nonsense", '{"config": 1'])
def test_damaged_config_blocks_overwrite(run, content):
    run.config.write_text(content)
    assert run.create(overwrite=True) == [] and list(tree(run.path)) == [MANIFEST]


def test_run_without_manifest_blocks_overwrite(run):
    """A run of an older version."""
    (run.path / MANIFEST).unlink()
    with pytest.raises(OptionError, match="already contains a run: resume it with --resume"):
        run.create(overwrite=False)
    run.reopen()
    assert (run.path / MANIFEST).exists()
    (run.path / MANIFEST).unlink()
    assert run.create(overwrite=True) == [] and list(tree(run.path)) == [MANIFEST]


@pytest.mark.parametrize("listed", [["notes.txt", "../notes.txt", "loss.png", 5], "loss.png", None])
def test_manifest_widens_what_is_removed(run, listed):
    """A manifest does not make other names a run's; a name that it lacks is foreign."""
    (run.path / "notes.txt").write_text("mine")
    (run.path.parent / "notes.txt").write_text("mine")
    (run.path / MANIFEST).write_text(json.dumps({"files": listed}))
    if isinstance(listed, list):
        assert owned_names(run.path) == {"loss.png"}
        with pytest.raises(OptionError, match="metrics.jsonl, gradients.jsonl, .* and 2 more; mov"):
            run.create(overwrite=True)
    else:
        assert run.create(overwrite=True) == ["notes.txt"]  # by config.json
    assert (run.path / "notes.txt").read_text() == "mine"
    assert (run.path.parent / "notes.txt").read_text() == "mine"


def test_interrupted_overwrite_is_stuck(run, monkeypatch):
    """A process is killed while it removes a run of an older version."""
    (run.path / MANIFEST).unlink()

    def die(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(own_files.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            run.create(overwrite=True)
    assert not run.config.exists() and (run.checkpoints / "8").exists()
    assert run.create(overwrite=True) == [] and list(tree(run.path)) == [MANIFEST]


LEFTOVERS = (
    f"config.json.{TOKEN}.partial",
    f"metrics.jsonl.{TOKEN}.partial",
    f"{MANIFEST}.{TOKEN}.partial",
    "checkpoints/12/d/data",
    "checkpoints/12.orbax-checkpoint-tmp-17/d/data",
    "checkpoints/8.orbax-checkpoint-tmp/data",
    "checkpoints/8.again/data",
    "checkpoints/8.again.orbax-checkpoint-tmp/data",
    f"checkpoints/12.sha256.{TOKEN}.partial",
)


@pytest.mark.parametrize("start", ["reopen", "remove_leftovers"])
def test_leftovers_stay(run, start):
    for name in FOREIGN:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    before = tree(run.path)
    for name in LEFTOVERS:
        (run.path / name).parent.mkdir(exist_ok=True, parents=True)
        (run.path / name).write_text("left")
    run.reopen() if start == "reopen" else remove_leftovers(run.path)
    assert tree(run.path) == before


def test_copy_that_is_not_in_manifest_stays(run):
    (run.checkpoints / "8.again").mkdir()
    (run.checkpoints / "8.sha256").write_text("00  8.again/data\n")
    remove_leftovers(run.path)
    assert (run.checkpoints / "8.again").exists() and not (run.checkpoints / "8").exists()


def test_foreign_checkpoints_count_as_leftovers(tmp_path):
    (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    (tmp_path / "checkpoints" / "12" / "data").write_text("mine")
    before = tree(tmp_path)
    remove_leftovers(tmp_path)
    assert tree(tmp_path) == before


def test_start_killed_before_its_config_blocks(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(overwrite=False)
    for name in LEFTOVERS[:3]:
        (run.path / name).write_text("left")
    assert run.create(overwrite=False) == [] and list(tree(run.path)) == [MANIFEST]


def test_threads_share_a_new_folder(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(make_new_folder, [tmp_path / "runs"] * 64))
    assert len(set(folders)) == 64 == len(os.listdir(tmp_path / "runs"))


def test_processes_share_a_new_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from lstm_optax.runs.new_folder import make_new_folder\n"
        "sys.stdin.read()\n"
        "for _ in range(20): print(make_new_folder(Path(sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in running:
        process.stdin.close()  # all begin
    made = []
    for process in running:
        with process:
            made += process.stdout.read().split()
    assert len(set(made)) == 60 == len(os.listdir(tmp_path / "runs"))


def test_removed_parent_is_not_made_again(tmp_path, monkeypatch):
    """Another process removes the parent, which is empty, just after it was created."""
    made, mkdir = [], Path.mkdir

    def steal(path, *args, **options):
        made.append(path.name)
        mkdir(path, *args, **options)
        if made == ["runs"]:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", steal)
    folder = make_new_folder(tmp_path / "runs")
    assert folder.is_dir() and made == ["runs", folder.name, "runs", folder.name]
    remove_if_empty(folder, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    remove_if_empty(tmp_path / "a" / "b", tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
