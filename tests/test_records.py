"""Records as JSON lines, their provenance, and Markdown tables."""

import json
import os
import re
import shutil
import subprocess

import pytest

from lstm_optax import records


def test_writes_and_reads_back_records(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    records.append_record(path, {"x": (1, float("nan")), "y": {"z": float("-inf")}})
    records.append_record(path, {"é": None})
    assert records.read_records(path) == [{"x": [1, None], "y": {"z": None}}, {"é": None}]
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert len(lines) == 2 and text.endswith("\n")


def test_line_without_object_is_none(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n[2]\n\n{"a"\n\xff\n{"b": 3}\n')
    expected = [{"a": 1}, None, None, None, None, {"b": 3}]
    assert records.read_records(path) == expected


@pytest.mark.parametrize("torn", [b'{"a": ', b"{", b'{"a": "\xc3'])
def test_drops_torn_last_line(tmp_path, torn):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    assert records.read_records(path) == [{"a": 1}]
    records.drop_torn_line(path)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_keeps_whole_line_without_newline(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}')
    assert records.read_records(path) == [{"a": 1}, {"a": 2}]
    records.drop_torn_line(path)
    records.append_record(path, {"a": 3})
    assert records.read_records(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_drop_torn_line_keeps_other_text(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    records.drop_torn_line(path)
    assert path.read_text() == "my notes\n"


def test_drop_torn_line_accepts_missing_file(tmp_path):
    records.drop_torn_line(tmp_path / "none.jsonl")
    assert not list(tmp_path.iterdir())


def test_whole_last_line_is_not_rewritten(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    records.append_record(path, {"a": 1})
    path.chmod(0o400)
    before = path.stat()
    records.drop_torn_line(path)
    assert path.stat() == before


@pytest.mark.parametrize("write", [records.append_record, records.drop_torn_line])
def test_records_follow_a_link(tmp_path, write):
    (tmp_path / "target").write_text('{"a": ')
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "link", *([{"a": 1}] if write is records.append_record else []))
    assert (tmp_path / "target").read_text() == '{"a": '


def test_atomic_write_follows_a_link(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    records.write_atomically(tmp_path / "link", "new é")
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / "link").read_bytes() == "new é".encode()
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("content", ["new", b"new", "\ud800"])
def test_failed_write_leaves_a_file(tmp_path, monkeypatch, content):
    (tmp_path / "file").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises((OSError, UnicodeError)):
        records.write_atomically(tmp_path / "file", content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_two_writers_share_a_temporary_file(tmp_path, monkeypatch):
    """The first writer is interrupted by the second one before it replaces the file."""
    replace = os.replace

    def pause(partial, path):
        monkeypatch.setattr(records.os, "replace", replace)
        assert re.fullmatch(re.escape(path.name) + records.PARTIAL, partial.name)
        records.write_atomically(path, "second")
        replace(partial, path)

    monkeypatch.setattr(records.os, "replace", pause)
    records.write_atomically(tmp_path / "file", "first")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "first"


def test_provenance_names_machine_and_code():
    made_by = records.provenance("a command", packages=("numpy",))
    assert made_by["command"] == "a command" and made_by["versions"].keys() == {"python", "numpy"}
    assert made_by["device"] == made_by["platform"] == "cpu" and made_by["cpu"]
    assert made_by["cores"] >= 1 and made_by["load"] >= 0 and "commit" in made_by


def test_core_count_without_sched_getaffinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert records.core_count() == (os.cpu_count() or 1)


def test_markdown_table():
    table = records.markdown_table(["a", "b"], [["1", "2"]], align_right=True)
    assert table == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
    assert records.markdown_table(["a", "b"], []) == "| a | b |\n| --- | --- |"


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commit_belongs_to_this_package(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    def commit(*words):
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", *words)

    code = tmp_path / "package" / "records.py"
    code.parent.mkdir(parents=True)
    code.write_text("1")
    (tmp_path / "records").write_text("1")
    monkeypatch.setattr(records, "__file__", str(code))
    assert records._commit() is None
    git("init")
    commit("--allow-empty", "-m", "empty")
    assert records._commit() is None
    git("add", ".")
    commit("-m", "it")
    assert len(records._commit()) == 40
    (tmp_path / "records").write_text("2")
    assert len(records._commit()) == 40, "records outside the package do not count"
    code.write_text("2")
    assert records._commit().endswith("-dirty")
