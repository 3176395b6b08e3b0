"""The commands sweep and compare: files, continuation, invalid input, a task in a file."""

import json
import re
from pathlib import Path

import pytest

import lstm_optax.report
from lstm_optax.commands.main import main
from lstm_optax.studies import read_study

DOCS = Path(__file__).parents[2] / "docs"
SADDLE = ["--task", "saddle", "--steps", "8", "--eval-every", "4", "--extensions", "0"]


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_report(monkeypatch):
    """Write an empty report, which takes no time."""

    def write(folder):
        (folder / "report.html").touch()
        return folder / "report.html"

    monkeypatch.setattr(lstm_optax.report, "write_report", write)


def test_sweep_writes_records(capsys, no_report):
    command = ["sweep", *SADDLE, "--optimizer", "sgd", "--rates", "0.1", "0.2", "--out", "a"]
    assert main([*command, "--grid", "clip=0.5,1"]) == 0
    shown = capsys.readouterr().out
    assert "task saddle: 4 trials of 8 steps" in shown and "records" in shown
    study = read_study(Path("a"))
    assert len(study.trials) == 4
    assert {trial.hyper["clip"] for trial in study.trials.values()} == {0.5, 1.0}
    assert Path("a/report.html").exists()
    before = Path("a/records.jsonl").read_bytes()
    assert main([*command, "--grid", "clip=0.5,1"]) == 0
    assert Path("a/records.jsonl").read_bytes() == before


def test_other_settings_leave_folder_unchanged(capsys, no_report):
    command = ["sweep", *SADDLE, "--optimizer", "sgd", "--rates", "0.1", "--out", "a"]
    assert main(command) == 0
    before = Path("a/records.jsonl").read_bytes()
    assert main([*command, "--steps", "12"]) == 2
    assert "with steps 8, but this one has 12: name another folder" in capsys.readouterr().err
    assert Path("a/records.jsonl").read_bytes() == before


def test_sweep_sets_hyper_parameters(no_report):
    command = ["sweep", *SADDLE, "--optimizer", "nadam", "--rates", "0.1", "--out", "a"]
    assert main([*command, "--set", "b2=0.5", "--grid", "b1=0.5,0.9"]) == 0
    study = read_study(Path("a"))
    assert study.study["settings"]["settings"] == {"b2": 0.5}
    assert [trial.hyper["b1"] for trial in study.trials.values()] == [0.5, 0.9]


def test_range_test_proposes_rates(capsys):
    command = ["sweep", "--range-test", "--task", "quadratic", "--optimizer", "sgd", "--out", "r"]
    assert main([*command, "--steps", "40"]) == 0
    shown = capsys.readouterr().out
    assert "proposed: --rates" in shown or "no proposal:" in shown
    assert Path("r/range_test.png").stat().st_size > 1000


@pytest.mark.slow
def test_optuna_searches_space(capsys):
    pytest.importorskip("optuna", reason="needs the extra: pip install 'lstm_optax[optuna]'")
    command = ["sweep", *SADDLE[:-2], "--optimizer", "sgd", "--optuna", "3", "--out", "o"]
    assert main([*command, "--space", "learning_rate=0.01:0.5"]) == 0
    assert len(read_study(Path("o")).trials) == 3 and Path("o/optuna.db").exists()


@pytest.mark.slow
def test_compare_prints_intervals_and_ties(capsys):
    command = ["compare", "sgd", "adam", *SADDLE, "--seeds", "3", "--rates", "0.1", "0.3"]
    assert main([*command, "--set", "adam:b2=0.9", "--out", "b"]) == 0
    shown = capsys.readouterr().out
    assert "test, 95 %" in shown and "void" in shown  # both rates are at an edge
    assert Path("b/report.html").stat().st_size > 10_000
    study = read_study(Path("b"))
    assert [t.part for t in study.trials.values()].count("report") == 6
    assert study.study["settings"]["settings"] == {"sgd": {}, "adam": {"b2": 0.9}}


@pytest.mark.slow
def test_task_of_the_docs_runs():
    """The page's first block is a task file."""
    page = (DOCS / "own_tasks.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.S)
    assert block
    Path("wave.py").write_text(block[1], encoding="utf-8")
    command = ["sweep", "--task", "wave.py", "--rates", "0.01", "0.03", "--extensions", "0"]
    assert main([*command, "--out", "own"]) == 0
    records = [json.loads(line) for line in Path("own/records.jsonl").read_text().splitlines()]
    assert records[0]["task"]["name"] == "wave"
    assert records[0]["task"]["baselines"].keys() == {"last value"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sweep", "--task", "addin"], "--task addin is not known; the nearest is adding"),
        (["sweep", "--task-set", "hiden=3"], "characters has no such argument; the nearest is hid"),
        (["sweep", "--set", "b3=1"], "nadam has no hyper-parameter 'b3'; there are b1, b2, eps"),
        (["sweep", "--optimizer", "nadm"], "error: unknown optimizer 'nadm'; the nearest is"),
        (["sweep", "--grid", "clip=0"], "--grid clip=0: clips must be numbers above 0"),
        (
            ["sweep", "--task", "saddle", "--rates", "-1"],
            "a learning_rate of the grid is -1.0, but",
        ),
        (
            ["sweep", "--task", "saddle", "--steps", "7", "--eval-every", "2"],
            "steps is 7, but must",
        ),
        (["sweep", "--steps", "0"], "--steps is 0, but must be a whole number"),
        (["sweep", "--halving", "1", "--task", "saddle"], "halving is 1, but must be 0"),
        (["sweep", "--optuna", "3"], "--optuna needs a --space"),
        (["sweep", "--space", "b1=0.5:0.9"], "--space needs --optuna"),
        (
            ["sweep", "--optuna", "3", "--space", "b1=0.5"],
            "--space b1=0.5: write a name and a range",
        ),
        (["sweep", "--optuna", "3", "--space", "b1=0:1", "--rates", "1"], "leave --rates and --gr"),
        (["sweep", "--out", "full"], "--out full holds other files: name another folder"),
        (["sweep", "--out", "full/file"], "--out full/file is a file: name a folder"),
        (["compare", "sgd", "--task", "saddle"], "compare needs at least two different optimizers"),
        (["compare", "sgd", "sgd"], "an optimizer is named twice in sgd sgd"),
        (
            ["compare", "sgd", "adam", "--set", "b2=0.9"],
            "name the optimizer as well, as in sgd:b2=0.9",
        ),
        (["compare", "sgd", "adam", "--set", "nadam:b2=0.9"], "nadam is not compared; these are"),
        (
            ["compare", "--task", "saddle", "--seeds", "2"],
            "an interval needs at least 3 fresh seeds",
        ),
    ],
)
def test_invalid_input_has_one_error(arguments, message, capsys):
    Path("full").mkdir()
    Path("full/file").touch()
    assert main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(Path().rglob("*")) == [Path("full"), Path("full/file")]
