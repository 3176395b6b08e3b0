"""Command bench: output, invalid options, interruption and resume."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from types import MappingProxyType

import jax
import pytest

from lstm_optax.bench import read_bench, timing
from lstm_optax.bench import runner as running
from lstm_optax.bench.workloads import OptimizerRow
from lstm_optax.commands import bench as cli_bench
from lstm_optax.commands.main import main

TOY = MappingProxyType(
    {
        "update": OptimizerRow(((3, 2), (4,)), "adam", "a toy of two leaves"),
        "other": OptimizerRow(((3, 2),), "nadam", "a toy of one leaf"),
    }
)
MARKS = "<!-- begin: written by lstm-optax bench -->\n<!-- end -->\n"

BAD = [
    ("--rows word", "--rows: unknown name 'word'; there are word-200, "),
    ("--against flax", "--against: unknown name 'flax'; there are flax-nnx, "),
    ("--rounds 0", "--rounds is 0, but must be a whole number from 1 to 2,147,483,647"),
    ("--seed -1", "--seed is -1, but must be a whole number from 0 to 4,294,967,295"),
    ("--plot a.pdf", "--plot a.pdf must end in .png"),
    ("--plot no/a.png", "--plot no/a.png cannot be written: the folder no does not exist"),
    (
        "--out no/a.jsonl",
        "--out no/a.jsonl cannot be written: the folder no does not exist",
    ),
    ("--out folder", "folder cannot be read: Is a directory; name another file"),
    ("--out other.jsonl", "other.jsonl holds no records of a benchmark; name another file"),
    ("--show", "bench.jsonl cannot be read: No such file or directory; name another file"),
    ("--show --resume", "--show measures nothing and --resume continues: pass only one"),
    ("--page no.md", "--page no.md does not exist: choose a page that has the two marks"),
    ("--page bare.md", "--page bare.md: the page has no place for the tables: put <!-- begin"),
]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Return a working folder; replace the rows by small ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "bare.md").write_text("nothing\n")
    (tmp_path / "page.md").write_text(f"# A page\n\n{MARKS}")
    monkeypatch.setattr(cli_bench, "WORKLOADS", TOY)
    monkeypatch.setattr(cli_bench, "load_average", lambda: 0.0)
    monkeypatch.setattr(running, "without_cache", contextlib.nullcontext)
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    return tmp_path


def bench(*arguments):
    with jax.numpy_rank_promotion("allow"):
        return main(["bench", "--against", "optax", "--rounds", "1", *arguments])


def test_bench_writes_records_plot_and_page(work, capsys):
    assert bench("--rows", "update", "other", "--plot", "a.png", "--page", "page.md") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "update: a toy of two leaves, 2 leaves, 0.0 M\n" in out
    assert re.search(r"\n  step     optax +[\d.]+ ms \([\d.]+–[\d.]+\)  [\d.]+ × ours\n", out)
    assert "Update of the parameters, one step per dispatch" in out and "geometric mean" in out
    assert "saved a.png\nupdated page.md\n" in out
    assert (work / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "| update | 2 leaves, 0.0 M |" in (work / "page.md").read_text()
    records = read_bench("bench.jsonl")
    assert [r["row"] for r in records if r["record"] == "end"] == ["update", "other"]
    before = (work / "bench.jsonl").read_bytes()
    assert bench("--show") == 0, "which measures nothing"
    shown = capsys.readouterr().out
    assert "geometric mean" in shown and shown in out
    assert (work / "bench.jsonl").read_bytes() == before


def test_ctrl_c_keeps_results(work, capfd, monkeypatch):
    taken = running.time_in_turn
    count = []

    class Ended(BaseException):
        pass

    def end(status):
        if threading.current_thread() is threading.main_thread():
            raise Ended(status)

    def stop(*arguments, **options):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGINT)
        return taken(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Ended, match="130"):
        patch.setattr(os, "_exit", end)
        patch.setattr(running, "time_in_turn", stop)
        patch.setattr(sys, "argv", ["lstm-optax", "bench", "--rounds", "1"])
        bench()
    assert capfd.readouterr().err.startswith(
        "\nstopped; the results so far are in bench.jsonl. Continue with:\n"
        "  lstm-optax bench --rounds 1 --resume\n"
    )
    assert [r["row"] for r in read_bench("bench.jsonl") if r["record"] == "end"] == ["update"]
    assert bench("--resume") == 0
    ended = [r["row"] for r in read_bench("bench.jsonl") if r["record"] == "end"]
    assert ended == ["update", "other"]


def test_busy_machine_warning(work, capsys, monkeypatch):
    monkeypatch.setattr(cli_bench, "load_average", lambda: 64.0)
    monkeypatch.setattr(cli_bench, "core_count", lambda: 2)
    assert bench("--rows", "other") == 0
    out = capsys.readouterr().out
    assert out.startswith("warning: the load is 64.0 on 2 cores: other programs are running, ")


def test_full_disk_is_one_error(work, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device", "bench.jsonl")

    monkeypatch.setattr(running.Writer, "write", fail)
    assert bench() == 2
    err = capsys.readouterr().err
    assert err == (
        "error: bench.jsonl cannot be written: No space left on device; choose another file\n"
    )


def test_invalid_options_need_no_jax(work):
    lines = [f"bench {arguments}" for arguments, _ in BAD]
    code = (
        "import sys, shlex, json; from lstm_optax.commands.main import main\n"
        "for line in json.load(sys.stdin):\n"
        "    try: status = main(shlex.split(line))\n"
        "    except SystemExit as end: status = end.code\n"
        "    print(status, 'jax' in sys.modules)\n"
    )
    lines += ["bench --help", "bench --rounds x"]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(lines), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = re.findall(r"^(\d) (True|False)$", done.stdout, re.M)
    assert statuses == [("2", "False")] * len(BAD) + [("0", "False"), ("2", "False")]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(BAD)
    for error, (_, message) in zip(errors, BAD, strict=True):
        assert message in error


@pytest.mark.parametrize("arguments", ["--rounds many", "--lerning 1", "--plot"])
def test_wrong_flags_exit_with_status_2(work, capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(["bench", *shlex.split(arguments)])
    assert end.value.code == 2 and "Traceback" not in capsys.readouterr().err
