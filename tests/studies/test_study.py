"""Common parts of the studies: the file of records, its provenance, the grid of rates."""

import json
from pathlib import Path

import pytest

from lstm_optax.runs import OptionError
from lstm_optax.studies.study import RecordFile, rate_past_edge

SETTINGS = {"hidden": 4, "rates": (0.1, 0.3)}


def open_file(path, name="memory", settings=SETTINGS, command="python -m it"):
    return RecordFile(path, name, settings, command)


def test_record_is_read_back_with_provenance(tmp_path):
    path = tmp_path / "new" / "records.jsonl"
    file = open_file(path)
    assert file.find({"task": "a"}) is None
    made = file.add({"task": "a"}, {"score": float("nan"), "trials": ({"at": 3},)})
    again = open_file(path).find({"task": "a"})
    assert made == again
    assert again["score"] is None and again["trials"] == [{"at": 3}]
    assert (again["study"], again["settings"]["rates"]) == ("memory", [0.1, 0.3])
    assert again["made_by"]["command"] == "python -m it"
    packages = {"python", "lstm_optax", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert again["made_by"]["versions"].keys() == packages
    assert again["made_by"]["device"] == "cpu" and "commit" in again["made_by"]


def test_two_processes_share_one_file(tmp_path):
    first, second = open_file(tmp_path / "r.jsonl"), open_file(tmp_path / "r.jsonl")
    first.add({"task": "a"}, {})
    assert second.find({"task": "a"})
    second.add({"task": "b"}, {})
    assert [r["cell"]["task"] for r in open_file(tmp_path / "r.jsonl").read()] == ["a", "b"]


def test_torn_line_is_removed(tmp_path):
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
        ("{", "line 2 of .* is not a record: name another file with --out"),
        ("[]", "line 2 of .* is not a record"),
        ('{"study": "memory"}', "line 2 of .* is not a record"),
    ],
)
def test_invalid_line_is_named(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    open_file(path).add({}, {})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(OptionError, match=message):
        open_file(path)


def test_rejected_file_is_unchanged(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"my": "notes"}\n{"torn": ')
    with pytest.raises(OptionError, match="line 1 of .* is not a record"):
        open_file(path)
    assert path.read_text() == '{"my": "notes"}\n{"torn": '


def test_rejects_records_of_other_settings(tmp_path):
    path = tmp_path / "r.jsonl"
    open_file(path).add({}, {})
    with pytest.raises(OptionError, match="other settings, hidden 4 and not 8: name another"):
        open_file(path, settings=SETTINGS | {"hidden": 8})
    with pytest.raises(OptionError, match="other settings, steps None and not 9"):
        open_file(path, settings=SETTINGS | {"steps": 9})
    with pytest.raises(OptionError, match="holds records of memory, not averages"):
        open_file(path, name="averages")


def test_rate_past_edge():
    assert rate_past_edge((0.1, 0.3, 1.0), 0.3) is None
    assert rate_past_edge((0.1, 0.3, 1.0), 0.1) == 0.03
    assert rate_past_edge((0.1, 0.3, 1.0), 1.0) == 3.0
    assert rate_past_edge((0.3, 0.1), 0.3) == 1.0
    rate, rates = 3e-5, []
    while rate < 1000:
        rate = rate_past_edge((rate / 2, rate), rate)
        rates.append(rate)
    expected = [float(f"{digit}e{e}") for e in range(-4, 3) for digit in (1, 3)]
    assert rates == [*expected, 1000.0]


def test_records_are_strict_json(tmp_path):
    open_file(tmp_path / "r.jsonl").add({}, {"x": [float("inf"), {"y": float("nan")}]})
    text = Path(tmp_path / "r.jsonl").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["x"] == [None, {"y": None}]
