"""The command reproduce: the table, the help, errors, a run at small size."""

import re

import pytest
from small_data import use_small_data

from lstm_optax.commands.main import main
from lstm_optax.reproductions import REPRODUCTIONS, char_rnn

NAME = "deepobs-char-rnn"


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_name_prints_all(capsys):
    assert main(["reproduce"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, found in REPRODUCTIONS.items():
        assert name in shown and found.source in shown
    assert "--data FILE, War and Peace" in shown


def test_help_lists_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    words = re.sub(r"[\s│]+", " ", shown)
    assert all(name in words for name in REPRODUCTIONS)


def test_errors_name_flags(capsys, work):
    (work / "other.txt").write_text("other")
    for arguments, message in {
        (): "error: --data is missing; pass the file with War and Peace",
        ("--data", "none.txt"): "error: --data none.txt: there is no such file",
        ("--data", "other.txt"): "error: --data other.txt has the SHA-256 d9298a10d1b0",
    }.items():
        assert main(["reproduce", NAME, *arguments]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1
        assert "https://cs.stanford.edu" in shown and REPRODUCTIONS[NAME].data.sha256 in shown
    assert main(["reproduce", "deepobs-char"]) == 2
    assert "the nearest is deepobs-char-rnn" in capsys.readouterr().err
    assert not (work / "studies").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_each_reproduction_runs_small(name, capsys, work, monkeypatch):
    for library in ("optuna", "sklearn"):
        pytest.importorskip(library, reason="needs the extras optuna and digits")
    if name == NAME:
        monkeypatch.setattr(char_rnn, "OPTIMIZERS", {"Adam": char_rnn.OPTIMIZERS["Adam"]})
    found, command = REPRODUCTIONS[name], ["reproduce", name, "--seeds", "2", "--quick"]
    if found.data:
        use_small_data(work / "data", monkeypatch, name)
        command += ["--data", "data"]
    command += ["--epochs", "1"] if found.epochs else []
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"trials, folder studies/{name}-quick" in shown and found.source in shown
    rows = {"Adam"} if name == NAME else {number.row for number in found.published}
    assert all(row in shown for row in rows)
    if name == NAME:
        assert re.search(r"Adam epoch 1 \d\S* \(\S+\) 1\.75 [+-]\d\.\d+ (yes|no) ", shown)
    before = (work / f"studies/{name}-quick/records.jsonl").read_bytes()
    assert main(command) == 0
    assert (work / f"studies/{name}-quick/records.jsonl").read_bytes() == before
