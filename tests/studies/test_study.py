"""What studies share: the file of records, what a record carries, the rates past an edge."""

import json
import subprocess
from pathlib import Path

import pytest

from lstm_optax.runs import OptionError
from lstm_optax.studies import study
from lstm_optax.studies.study import RecordFile, beyond

SETTINGS = {"hidden": 4, "rates": (0.1, 0.3)}


def open_file(path, name="memory", settings=SETTINGS, command="python -m it"):
    return RecordFile(path, name, settings, command)


def test_a_record_is_found_again_with_what_made_it(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    file = open_file(path)
    assert file.find({"task": "a"}) is None
    made = file.add({"task": "a"}, {"score": float("nan"), "lanes": ({"at": 3},)})
    again = open_file(path).find({"task": "a"})
    assert made == again
    assert again["score"] is None and again["lanes"] == [{"at": 3}]
    assert (again["study"], again["settings"]["rates"]) == ("memory", [0.1, 0.3])
    assert again["made_by"]["command"] == "python -m it"
    packages = {"python", "lstm_optax", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert again["made_by"]["versions"].keys() == packages
    assert again["made_by"]["device"] == "cpu" and "commit" in again["made_by"]


def test_two_runs_may_write_the_same_file(tmp_path):
    first, second = open_file(tmp_path / "r.jsonl"), open_file(tmp_path / "r.jsonl")
    first.add({"task": "a"}, {})
    assert second.find({"task": "a"})
    second.add({"task": "b"}, {})
    assert [r["cell"]["task"] for r in open_file(tmp_path / "r.jsonl").read()] == ["a", "b"]


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    path = tmp_path / "r.jsonl"
    file = open_file(path)
    file.add({"task": "a"}, {})
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    file = open_file(path)
    assert len(file.read()) == 1 and path.read_text() == whole
    file.add({"task": "b"}, {})
    assert len(open_file(path).read()) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is no record: name another file with --out"),
        ("[]", "line 2 of .* is no record"),
        ('{"study": "memory"}', "line 2 of .* is no record"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    open_file(path).add({}, {})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(OptionError, match=message):
        open_file(path)


def test_records_of_other_settings_or_of_another_study_are_not_mixed(tmp_path):
    path = tmp_path / "r.jsonl"
    open_file(path).add({}, {})
    with pytest.raises(OptionError, match="other settings, hidden 4 and not 8: name another"):
        open_file(path, settings=SETTINGS | {"hidden": 8})
    with pytest.raises(OptionError, match="other settings, steps None and not 9"):
        open_file(path, settings=SETTINGS | {"steps": 9})
    with pytest.raises(OptionError, match="holds records of memory, not averages"):
        open_file(path, name="averages")


def test_the_commit_is_that_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    def commit(*words):
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", *words)

    code = tmp_path / "package" / "experiments" / "study.py"
    code.parent.mkdir(parents=True)
    code.write_text("1")
    (tmp_path / "records").write_text("1")
    monkeypatch.setattr(study, "__file__", str(code))
    assert study._commit() is None
    git("init")
    commit("--allow-empty", "-m", "empty")
    assert study._commit() is None
    git("add", ".")
    commit("-m", "it")
    assert len(study._commit()) == 40
    (tmp_path / "records").write_text("2")
    assert len(study._commit()) == 40, "records are no code"
    code.write_text("2")
    assert study._commit().endswith("-dirty")


def test_rates_past_the_edge():
    assert beyond((0.1, 0.3, 1.0), 0.3) is None
    assert beyond((0.1, 0.3, 1.0), 0.1) == 0.03
    assert beyond((0.1, 0.3, 1.0), 1.0) == 3.0
    assert beyond((0.3, 0.1), 0.3) == 1.0
    rate, rates = 3e-5, []
    while rate < 1000:
        rate = beyond((rate / 2, rate), rate)
        rates.append(rate)
    expected = [float(f"{digit}e{e}") for e in range(-4, 3) for digit in (1, 3)]
    assert rates == [*expected, 1000.0]


def test_the_records_are_json_for_any_reader(tmp_path):
    open_file(tmp_path / "r.jsonl").add({}, {"x": [float("inf"), {"y": float("nan")}]})
    text = Path(tmp_path / "r.jsonl").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["x"] == [None, {"y": None}]
