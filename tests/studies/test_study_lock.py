"""Several processes and one folder of a study: who is refused, and what is recorded."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from other_thread import is_free
from quadratic_task import quadratic

from lstm_optax.commands.study_options import StudyOptions
from lstm_optax.records import read_records
from lstm_optax.runs import OptionError
from lstm_optax.runs.folder_lock import LOCK_FILE, hold_folder
from lstm_optax.studies import StudyError, compare, optuna_sweep, study_log, sweep
from lstm_optax.studies.study_log import StudyLog

OPTIONS = dict(clip=0, steps=10, eval_every=5, schedule="constant")
RATES = {"learning_rate": (0.1, 0.2)}
TASK, SETTINGS = {"name": "t"}, {"clip": 1.0}


def start(kind, folder, **options):
    """Start a study of each kind."""
    task, options = quadratic([1.0]), OPTIONS | options | {"out": folder}
    if kind == "sweep":
        return sweep(task, "sgd", grid=RATES, extensions=0, **options)
    if kind == "compare":
        grids = {name: {"learning_rate": (0.1,)} for name in ("sgd", "momentum_sgd")}
        return compare(task, list(grids), grids=grids, seeds=3, extensions=0, **options)
    return optuna_sweep(task, "sgd", RATES, trials=1, **options)


@contextmanager
def held_elsewhere(folder):
    """Another thread holds the folder; it counts as another process."""
    with ThreadPoolExecutor(1) as other:
        held = hold_folder(folder)
        other.submit(held.__enter__).result(timeout=10)
        try:
            yield
        finally:
            other.submit(held.__exit__, None, None, None).result(timeout=10)


@pytest.mark.parametrize("kind", ["sweep", "compare", "optuna"])
def test_running_study_is_shared(kind, tmp_path, monkeypatch):
    if kind == "optuna":
        pytest.importorskip("optuna")
    monkeypatch.setattr(study_log, "LONGEST_WAIT", 0.01)
    with held_elsewhere(tmp_path):
        before = sorted(tmp_path.iterdir())
        message = f"^{tmp_path} is in use by process {os.getpid()} on .*: wait until it ends, or"
        with pytest.raises(OptionError, match=message):
            start(kind, tmp_path)
        assert [path for path in sorted(tmp_path.iterdir()) if path.name != "optuna.db"] == before


@pytest.mark.parametrize("kind", ["sweep", "compare"])
def test_study_is_not_held(kind, tmp_path):
    """From its first to its last evaluation, no other process can write to the folder."""
    shared = []
    start(kind, tmp_path, on_evaluation=lambda trial, record: shared.append(is_free(tmp_path)))
    assert len(shared) >= 4 and not any(shared)
    assert is_free(tmp_path)


def test_optuna_sweep_is_not_shared(tmp_path):
    """While it trains, another process may add records."""
    pytest.importorskip("optuna")
    shared = []
    start("optuna", tmp_path, on_evaluation=lambda trial, record: shared.append(is_free(tmp_path)))
    assert shared == [True, True]


def open_log(folder, settings=SETTINGS):
    return StudyLog(folder, "sweep", TASK, settings, "command")


def test_concurrent_records_are_torn(tmp_path):
    """Many writers with long records, and two of them begin the study at the same time."""
    logs = [open_log(tmp_path) for _ in range(4)]

    def write(number):
        for i in range(8):
            facts = dict(trial=f"{number} {i}", step=1, text=str(number) * 20_000)
            logs[number].add({"record": "evaluation", **facts})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4), timeout=60))
    rows = read_records(tmp_path / "records.jsonl")
    assert None not in rows and len(rows) == 33
    assert [row["record"] for row in rows].count("study") == 1 and rows[0]["record"] == "study"
    assert len({row["trial"] for row in rows[1:]}) == 32


def test_torn_record_of_another_process(tmp_path):
    """A process that shares the study is killed while it writes; the others continue."""
    log = open_log(tmp_path)
    log.add({"record": "end", "trial": "a"})
    with log.path.open("ab") as file:
        file.write(b'{"record": "end", "tri')
    log.add({"record": "end", "trial": "b"})
    assert [row.get("trial") for row in read_records(log.path)] == [None, "a", "b"]


def test_study_begins_twice(tmp_path):
    """Another process begins a study between the check of the folder and the hold of it."""
    same, other = open_log(tmp_path), open_log(tmp_path, {"clip": 2.0})
    open_log(tmp_path).add({"record": "end", "trial": "a"})
    with same.hold():
        same.add({"record": "end", "trial": "b"})
    with pytest.raises(StudyError, match="holds a study with clip 1.0, but this one has 2.0"):
        with other.hold():
            pass
    with pytest.raises(StudyError, match="holds a study with clip 1.0, but this one has 2.0"):
        other.add({"record": "end", "trial": "c"})
    rows = read_records(tmp_path / "records.jsonl")
    assert [row["record"] for row in rows] == ["study", "end", "end"]


@pytest.mark.parametrize("content", [None, "", "mine"])
def test_records_through_a_link(tmp_path, content):
    target = tmp_path / "target"
    if content is not None:
        target.write_text(content)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "records.jsonl").symlink_to(target)
    with pytest.raises(StudyError, match="records.jsonl is a symbolic link, not records: name an"):
        open_log(tmp_path / "study")
    assert target.read_text() == content if content is not None else not target.exists()


def test_refused_study_leaves_a_folder(tmp_path):
    with pytest.raises(StudyError, match="does not accept"):
        sweep(quadratic([1.0]), "sgd", grid=RATES | {"b9": (1.0,)}, out=tmp_path / "a", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_new_studies_share_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with StudyOptions().folder() as one, StudyOptions().folder() as two:
        assert one != two and one.is_dir() and two.is_dir()
        assert one.parent == Path("studies")
        (one / "records.jsonl").write_text(json.dumps({}))
    assert one.exists() and not two.exists()
    with StudyOptions(out=tmp_path / "mine").folder() as given:
        assert given == tmp_path / "mine" and not given.exists()


def test_lock_counts_as_another_file(tmp_path):
    (tmp_path / LOCK_FILE).touch()
    StudyOptions(out=tmp_path).check()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StudyError, match="holds other files: name another folder"):
        StudyOptions(out=tmp_path).check()
