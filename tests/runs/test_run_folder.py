"""Run folder: files are read as they were written, and damage is detected."""

import json
import math
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from lstm_optax import TrainConfig
from lstm_optax.runs import OptionError, new_folder, run_folder
from lstm_optax.runs.resume import check_resume
from lstm_optax.runs.run_folder import RunFolder

FACTS = {
    "text": {"name": "τ", "sha256": "ab", "vocabulary": '\n "\\é🙂'},
    "baselines": {"1-gram": 0.1},
}
RECORDS = [
    {"step": step, "seconds": 0.5 * step, "train_loss": 2.0, "val_loss": 3.0} for step in (4, 8, 12)
]

GRADIENTS = [{"step": step, "h": [[0.5, 1e-30]], "gates": [[[1.0] * 4] * 2]} for step in (4, 8)]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Return a folder with the files of a run, and two other files."""
    run = RunFolder(tmp_path / "run")
    run.create(overwrite=False)
    run.write_config(TrainConfig(), FACTS)
    run.records.write(RECORDS)
    run.checkpoints.mkdir()
    (run.checkpoints / "4.sha256").write_text("")
    run.picture.write_bytes(b"png")
    run.gradients.write(GRADIENTS)
    run.gradient_picture.write_bytes(b"png")
    run.sample.write_text("text")
    (run.path / "notes.txt").write_text("mine")
    (run.path / "sub").mkdir()
    (run.path / "sub" / "config.json").write_text("mine")
    return run


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(text=Path("a b/τ.txt"), weight_decay=0.1, learning_rate=1 / 3, tied=True),
        TrainConfig(set=("b1=0.5", "eps=1e-6")),
        TrainConfig(text=Path(os.fsdecode(b"caf\xe9.txt"))),
    ],
    ids=["defaults", "others", "settings", "a name that is no UTF-8"],
)
def test_config_round_trip(run, config):
    run.write_config(config, FACTS)
    assert run.read_config() == (config, FACTS)


def test_flipped_config_bits_are_detected(run):
    """A flip that changes only whitespace is harmless."""
    whole, noticed = run.config.read_bytes(), 0
    for place in range(len(whole)):
        run.config.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert run.read_config() == (TrainConfig(), FACTS)
        except OptionError as error:
            assert f"{run.config} is damaged (" in str(error) and "--overwrite" in str(error)
            noticed += 1
    assert noticed > len(whole) / 2


@pytest.mark.parametrize("text", ["", "nonsense", "5", "[]", "null", '"x"', "{}", '{"sha256": 1}'])
def test_read_config_rejects_invalid_json(run, text):
    run.config.write_text(text)
    with pytest.raises(OptionError, match=r"config\.json is damaged \(.+\): restore it, or train"):
        run.read_config()


def test_read_config_rejects_unknown_options(run, monkeypatch):
    monkeypatch.setattr("lstm_optax.runs.run_folder.fields", lambda _: [])
    with pytest.raises(OptionError, match=r"does not know the options \['ar', 'baselines', .+\]"):
        run.read_config()


def test_older_run_gets_default_option(run):
    content = json.loads(run.config.read_text())
    del content["config"]["guard"], content["sha256"]
    digest = run_folder._digest(content)
    run.config.write_text(json.dumps(content | {"sha256": digest}))
    assert run.read_config() == (TrainConfig(), FACTS)


def test_older_run_has_one_device(run):
    content = json.loads(run.config.read_text())
    del content["config"]["devices"], content["sha256"]
    digest = run_folder._digest(content)
    run.config.write_text(json.dumps(content | {"sha256": digest}))
    assert run.read_config() == (TrainConfig(devices=1), FACTS)


def test_read_config_needs_config_file(tmp_path):
    with pytest.raises(OptionError, match="contains no run: there is no config.json"):
        RunFolder(tmp_path).read_config()


def test_failed_write_keeps_old_file(run, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lstm_optax.records.os.fsync", full)  # after the bytes were written
        with pytest.raises(OSError, match="No space left"):
            run.write_config(TrainConfig(hidden=3), FACTS)
        with pytest.raises(OSError, match="No space left"):
            run.records.write([])
    assert run.read_config() == (TrainConfig(), FACTS)
    assert run.records.read() == RECORDS


def test_records_round_trip(run):
    run.records.append(RECORDS[0] | {"step": 16, "val_loss": math.inf, "train_loss": math.nan})
    lines = run.records.path.read_text().splitlines()
    assert json.loads(lines[-1]) == {
        "step": 16,
        "seconds": 2.0,
        "train_loss": None,
        "val_loss": None,
    }
    assert run.records.read()[:3] == RECORDS and run.records.read()[3]["val_loss"] is None
    assert run.records.read(8) == RECORDS[:2]
    assert run.records.read(3) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b'{"step": 8, "seconds": 1.0, "val_lo',
        b"\xff\xfe\x00",
        b"5",
        b"[]",
        b"{}",
        b'{"step": 8}',
        b'{"step": null, "seconds": 1.0, "val_loss": 2.0}',
        b'{"step": 8, "seconds": "1", "val_loss": 2.0}',
        b'{"step": 8, "seconds": 1.0, "val_loss": "2"}',
    ],
)
def test_damaged_record_lines_are_skipped(run, line):
    lines = run.records.path.read_bytes().splitlines()
    run.records.path.write_bytes(b"\n".join([lines[0], line, lines[2], line]))
    assert run.records.read() == [RECORDS[0], RECORDS[2]]
    assert run.records.read(8) == [RECORDS[0]]


def test_gradients_round_trip(run):
    assert run.gradients.read() == GRADIENTS and run.gradients.read(4) == GRADIENTS[:1]
    run.gradients.append({"step": 12, "h": [[math.inf, 2.0]], "gates": [[[math.nan] * 4] * 2]})
    with run.gradients.path.open("ab") as file:
        file.write(b'{"step": 16, "h": [[1.0')
    expected = {"step": 12, "h": [[None, 2.0]], "gates": [[[None] * 4] * 2]}
    assert run.gradients.read() == [*GRADIENTS, expected]
    run.gradients.path.unlink()
    assert run.gradients.read() == []


def test_missing_records_file_is_empty(tmp_path):
    assert RunFolder(tmp_path).records.read() == []


def test_create_deletes_only_with_overwrite(run):
    with pytest.raises(OptionError, match="already contains a run: resume it with --resume"):
        run.create(overwrite=False)
    assert run.records.read() == RECORDS
    assert run.create(overwrite=True) == ["notes.txt", "sub"]
    assert run.files() == []
    left = {str(path.relative_to(run.path)) for path in run.path.rglob("*")}
    assert left == {".run.json", "notes.txt", "sub", "sub/config.json"}
    assert (run.path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "sample.txt"])
def test_check_free_detects_partial_run(tmp_path, name):
    run = RunFolder(tmp_path)
    run.create(overwrite=False)
    (tmp_path / name).touch()
    with pytest.raises(OptionError, match="already contains a run"):
        run.check_free()


def test_files_lists_existing_files(run):
    names = ["metrics.jsonl", "loss.png", "gradients.jsonl", "gradients.png"]
    names += ["sample.txt", "config.json", "checkpoints"]
    assert run.files() == [run.path / name for name in names]
    run.sample.unlink()
    assert [path.name for path in run.files()] == [n for n in names if n != "sample.txt"]


def test_deeply_nested_json_is_damage(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    run = RunFolder(tmp_path / "a[b]" / "run")
    run.create(overwrite=False)
    run.config.write_text('{"config": ' + deep + "}")
    with pytest.raises(OptionError, match="config.json is damaged"):
        run.read_config()
    run.records.write(RECORDS[:1])
    with run.records.path.open("a") as file:
        file.write(deep + "\n")
    assert run.records.read() == RECORDS[:1]


def test_newest_run_by_config_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="there is no run in runs/: pass the folder of a run"):
        RunFolder.newest()
    for time, name in ((3, "a"), (5, "b"), (4, "c")):
        run = RunFolder(Path("runs") / name)
        run.create(overwrite=False)
        run.write_config(TrainConfig(), FACTS)
        os.utime(run.config, (time, time))
    (tmp_path / "runs" / "empty").mkdir()
    assert RunFolder.newest().path == Path("runs/b")


def test_same_second_gets_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_folder, "datetime", SimpleNamespace(now=lambda: datetime(2025, 1, 2)))
    runs = [RunFolder.new() for _ in range(3)]
    time = "2025-01-02_00-00-00"
    assert [run.path.name for run in runs] == [time, f"{time}-2", f"{time}-3"]
    for run in runs:
        run.remove_if_empty()
    assert not (tmp_path / "runs").exists()
    runs = [RunFolder.new() for _ in range(2)]
    (runs[0].path / "notes.txt").write_text("mine")
    for run in runs:
        run.create(overwrite=False)
        (run.path / ".lock").touch()
        run.remove_if_empty()
    assert [run.path.exists() for run in runs] == [True, False]
    assert len(list(runs[0].path.iterdir())) == 3


def test_concurrent_runs_share_no_folder(tmp_path):
    one, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    for run in (one, other):
        run.create(overwrite=False)  # both find the folder free
    one.write_config(TrainConfig(), FACTS, new=True)
    with pytest.raises(OptionError, match="already contains a run"):
        other.write_config(TrainConfig(seed=1), FACTS, new=True)
    assert one.read_config()[0] == TrainConfig()


@pytest.mark.parametrize("name", ["a\nb", "a\x7fb", os.fsdecode(b"caf\xe9"), "a\0b"])
def test_check_free_rejects_unprintable_names(tmp_path, name):
    with pytest.raises(
        OptionError, match="has a character that is not valid UTF-8 or not printable"
    ):
        RunFolder(tmp_path / name).check_free()


@pytest.mark.parametrize("characters, validation", [(1_000_000, None), (2_000_000, 200_000)])
def test_older_run_validated_on_a_tenth(run, characters, validation):
    facts = FACTS | {"text": FACTS["text"] | {"characters": characters}}
    run.write_config(TrainConfig(), facts)
    content = json.loads(run.config.read_text())
    del content["config"]["validation"], content["sha256"]
    digest = run_folder._digest(content)
    run.config.write_text(json.dumps(content | {"sha256": digest}))
    assert run.read_config()[0] == TrainConfig(validation=validation)


def test_check_resume_accepts_same_config(run):
    check_resume(run, TrainConfig())
    check_resume(run, TrainConfig(text=Path("moved.txt")))  # its content is compared


@pytest.mark.parametrize(
    "stored, given, flags",
    [
        (dict(), dict(hidden=3), "--hidden 256"),
        (
            dict(optimizer="nadamw", weight_decay=0.1),
            dict(),
            "--optimizer nadamw, --weight-decay 0.1",
        ),
        (
            dict(),
            dict(optimizer="nadamw", weight_decay=0.1),
            "--optimizer nadam, no --weight-decay",
        ),
        (dict(), dict(tied=True, eval_every=9), "no --tied, --eval-every 50"),
        (dict(tied=True), dict(), "--tied"),
        (dict(set=("b1=0.5", "eps=1e-6")), dict(), "--set b1=0.5 --set eps=1e-6"),
        (dict(), dict(set=("b1=0.5",)), "no --set"),
        (dict(schedule="constant"), dict(steps=9), "--schedule constant, --steps 400"),
    ],
    ids=str,
)
def test_check_resume_rejects_other_config(run, stored, given, flags):
    run.write_config(replace(TrainConfig(), **stored), FACTS)
    with pytest.raises(OptionError) as error:
        check_resume(run, replace(TrainConfig(), **given))
    assert f"the run in {run.path} has {flags}; leave these flags out" in str(error.value)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_more_steps_need_constant_schedule(run, schedule):
    for kind in ("constant", schedule):
        run.write_config(TrainConfig(schedule=kind), FACTS)
        longer = TrainConfig(schedule=kind, steps=500)
        if kind == "constant":
            check_resume(run, longer)
        else:
            with pytest.raises(
                OptionError, match=f"with --steps 400, on which its {kind} schedule"
            ):
                check_resume(run, longer)
