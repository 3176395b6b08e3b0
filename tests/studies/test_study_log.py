"""The records of a running study: continued, refused, and never overwritten."""

import json

import pytest

from lstm_optax.records import as_json, read_records
from lstm_optax.studies import StudyError, read_study
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial import make_trials

TASK, SETTINGS = {"name": "t", "steps": 4}, {"clip": 1.0, "rule": "adam"}
TRIAL, OTHER = make_trials("a", {"learning_rate": (0.1, 0.2)}, [1000])


def open_log(folder, kind="sweep", task=TASK, settings=SETTINGS):
    return StudyLog(folder, kind, task, settings, "command")


def begun(folder):
    log = open_log(folder)
    log.begin(TRIAL)
    log.add({"record": "evaluation", "trial": TRIAL.name, "step": 2, "validation": float("nan")})
    return log


@pytest.mark.parametrize("in_memory", [False, True])
def test_records_are_not_read_back(in_memory, tmp_path):
    log = begun(None if in_memory else tmp_path)
    found = log.read()
    assert found.study["kind"] == "sweep" and found.study["made_by"]["command"] == "command"
    (trial,) = found.trials.values()
    assert (trial.hyper, trial.seed, trial.part) == ({"learning_rate": 0.1}, 1000, "tuning")
    assert trial.evaluations[0]["validation"] is None and trial.end is None
    assert log.unfinished([TRIAL, OTHER]) == [TRIAL, OTHER]
    log.add({"record": "end", "trial": TRIAL.name, "status": "finished"})
    assert log.unfinished([TRIAL, OTHER]) == [OTHER]


def test_folder_is_written_without_records(tmp_path):
    folder = tmp_path / "new"
    log = open_log(folder)
    assert not folder.exists()
    assert log.unfinished([TRIAL]) == [TRIAL] and log.read().trials == {}
    log.begin(TRIAL)
    assert [row["record"] for row in read_records(log.path)] == ["study", "trial"]


def test_continued_study_writes_another_head(tmp_path):
    begun(tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    log = open_log(tmp_path)
    assert log.path.read_bytes() == before
    log.add({"record": "end", "trial": TRIAL.name, "status": "finished"})
    kinds = [row["record"] for row in read_records(log.path)]
    assert kinds == ["study", "trial", "evaluation", "end"]


DIFFERENCES = {
    "kind": (dict(kind="compare"), "holds a sweep, not a compare"),
    "task": (dict(task=TASK | {"name": "u"}), "a study with name t, but this one has u"),
    "steps": (dict(task=TASK | {"steps": 8}), "a study with steps 4, but this one has 8"),
    "settings": (dict(settings=SETTINGS | {"clip": 2.0}), "with clip 1.0, but this one has 2.0"),
    "rule": (dict(settings=SETTINGS | {"rule": "sgd"}), "with rule adam, but this one has sgd"),
    "new": (dict(settings=SETTINGS | {"b": 1}), "with b None, but this one has 1"),
    "gone": (dict(settings={"rule": "adam"}), "with clip 1.0, but this one has None"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("torn", [b"", b'{"record": "evalu'])
def test_other_study_is_continued(name, torn, tmp_path):
    changes, message = DIFFERENCES[name]
    path = begun(tmp_path).path
    path.write_bytes(path.read_bytes() + torn)
    before = path.read_bytes()
    with pytest.raises(StudyError) as error:
        open_log(tmp_path, **changes)
    assert message in str(error.value) and str(tmp_path) in str(error.value)
    assert str(error.value).endswith(f"name another folder, or remove {tmp_path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["version", "missing", "more"])
def test_other_versions_are_continued(change, tmp_path):
    path = begun(tmp_path).path
    head, *rest = path.read_text().splitlines()
    head = json.loads(head)
    versions = head["made_by"]["versions"]
    if change == "version":
        versions["jax"] = "0.1"
    elif change == "missing":
        del versions["jax"]
    else:
        versions["torch"] = "9"
    path.write_text("\n".join([json.dumps(head), *rest]) + "\n")
    before = path.read_bytes()
    match = {"version": "jax 0.1, but", "missing": "jax None, but", "more": "torch 9, but None"}
    with pytest.raises(StudyError, match=f"holds records of {match[change]}"):
        open_log(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("length", [0, 1, 12, 18, 60, -1])
def test_torn_head_blocks_the_study(length, tmp_path):
    path = begun(tmp_path).path
    head = path.read_bytes().splitlines()[0]
    path.write_bytes(head[:length])
    begun(tmp_path)
    assert [row["record"] for row in read_records(path)] == ["study", "trial", "evaluation"]


def test_head_without_newline_counts_as_torn(tmp_path):
    path = begun(tmp_path).path
    head = path.read_bytes().splitlines()[0]
    path.write_bytes(head)
    with pytest.raises(StudyError, match="holds a study with clip 1.0, but this one has 2.0"):
        open_log(tmp_path, settings=SETTINGS | {"clip": 2.0})
    assert path.read_bytes() == head
    begun(tmp_path)
    assert [row["record"] for row in read_records(path)] == ["study", "trial", "evaluation"]


def test_torn_last_line_spoils_the_next(tmp_path):
    path = begun(tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"record": "end", "tri')
    log = open_log(tmp_path)
    assert log.unfinished([TRIAL]) == [TRIAL]
    log.add({"record": "end", "trial": TRIAL.name, "status": "finished"})
    assert path.read_bytes().startswith(whole)
    assert log.unfinished([TRIAL]) == []


@pytest.mark.parametrize("content", [b"a letter\n", b"a letter", b'{"a": 1', b"\x00\x01"])
def test_other_files_are_overwritten(content, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="the file is damaged"):
        open_log(tmp_path)
    assert path.read_bytes() == content


def test_settings_without_json_are_accepted(tmp_path):
    with pytest.raises(StudyError, match="^mask is <function .*, which the records cannot store"):
        open_log(tmp_path, settings={"mask": open_log})
    assert not (tmp_path / "records.jsonl").exists()


def test_tuple_settings_differ_from_stored(tmp_path):
    settings = SETTINGS | {"betas": (0.9, 0.99)}
    open_log(tmp_path, settings=settings).begin(TRIAL)
    assert open_log(tmp_path, settings=settings).read().study["settings"] == as_json(settings)
    assert list(read_study(tmp_path).trials) == [TRIAL.name]
