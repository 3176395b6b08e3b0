"""Reading a study's records: repeated, torn and damaged lines."""

import json

import pytest

from lstm_optax.studies import StudyError, read_study

HEAD = {"record": "study", "kind": "sweep", "task": {}, "settings": {}}
HEAD |= {"made_by": {"versions": {"jax": "1"}}}
TRIAL = dict(record="trial", trial="a", optimizer="adam", hyper={"learning_rate": 0.1})
TRIAL |= dict(seed=1000, part="tuning")


def evaluation(step, value, trial="a"):
    return dict(record="evaluation", trial=trial, step=step, validation=value)


def write(folder, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "records.jsonl").write_text("".join(f"{text}\n" for text in texts))
    return folder


def test_repeated_evaluations_count_twice(tmp_path):
    end = dict(record="end", trial="a", status="finished", step=8, seconds=1.0)
    rows = [evaluation(4, 1.0), evaluation(8, 0.5)]
    again = [TRIAL, evaluation(4, 1.5), evaluation(8, 0.7), end]
    found = read_study(write(tmp_path, HEAD, TRIAL, *rows, *again)).trials
    assert list(found) == ["a"]
    assert [(r["step"], r["validation"]) for r in found["a"].evaluations] == [(4, 1.5), (8, 0.7)]
    assert found["a"].end == end and not found["a"].diverged


def test_trials_of_two_writers_are_mixed_up(tmp_path):
    other = TRIAL | {"trial": "b", "seed": 1001}
    end = dict(record="end", trial="b", status="diverged", step=5)
    lines = HEAD, TRIAL, other, evaluation(4, 1.0, "b"), evaluation(4, 2.0), end
    found = read_study(write(tmp_path, *lines)).trials
    assert [trial.evaluations[0]["validation"] for trial in found.values()] == [2.0, 1.0]
    assert found["b"].diverged and found["a"].end is None


def test_last_choice_and_optimizer_are_dropped(tmp_path):
    choices = [dict(record="choice", optimizer="adam", value=v) for v in (1.0, 0.5)]
    optimizers = [dict(record="optimizer", optimizer="adam", slots=n) for n in (1, 2)]
    found = read_study(write(tmp_path, HEAD, *choices, *optimizers))
    assert found.choices["adam"]["value"] == 0.5 and found.optimizers["adam"]["slots"] == 2


def test_torn_last_line_is_read(tmp_path):
    write(tmp_path, HEAD, TRIAL)
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text() + '{"record": "evaluation", "trial"')
    assert read_study(tmp_path).trials["a"].evaluations == []


BAD = {
    "no file": (None, "has no records.jsonl: name the folder of a sweep or a compare"),
    "empty": ((), "has no record of the study: the file is damaged"),
    "no head": ((TRIAL,), "has no record of the study: the file is damaged"),
    "text": ((HEAD, "some text", TRIAL), "line 2 of .* is not a record: the file is damaged"),
    "other json": ((HEAD, {"a": 1}), "line 2 of .* is not a record: the file is damaged"),
    "head": ((HEAD | {"kind": None}, {"record": "study"}), "has a study without 'kind'"),
    "no step": ((HEAD, TRIAL, {"record": "evaluation", "trial": "a"}), "a record without 'step'"),
    "no trial": ((HEAD, {"record": "end"}), "a record without 'trial': the file is damaged"),
    "versions": (
        (HEAD, HEAD | {"made_by": {"versions": {"jax": "2"}}}),
        "records of 2 sets of package versions, which cannot be compared: run the study again",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_records_are_read(name, tmp_path):
    lines, message = BAD[name]
    if lines is not None:
        write(tmp_path, *lines)
    with pytest.raises(StudyError, match=message):
        read_study(tmp_path)


def test_two_studies_in_one_file_are_mixed(tmp_path):
    other = HEAD | {"settings": {"clip": 2.0}}
    with pytest.raises(StudyError, match="has records of several studies: run each in its own"):
        read_study(write(tmp_path, HEAD, TRIAL, other))
