"""Training run: records, exact resume, damaged files, divergence, and samples."""

import json
import math
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import oracles
import orbax.checkpoint as ocp
import pytest
from reproducible import reproducible

from lstm_optax import (
    OPTIMIZERS,
    CheckpointError,
    Checkpoints,
    TrainConfig,
    sample_text,
    train_language_model,
)
from lstm_optax.data import TextError, Windows
from lstm_optax.gates import GATES
from lstm_optax.runs import Diverged, Observer, OptionError, SampleConfig
from lstm_optax.runs.folder_lock import LOCK_FILE, hold_folder
from lstm_optax.runs.run_folder import RunFolder

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)
NEVER = 10**9  # a step that is never reached


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """Return twenty steps, a record every five; dispatches end at 5, 8, 10, 15, 16 and 20."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT)
    model = dict(hidden=8, embedding=4, dropout=0.5)
    course = dict(schedule="constant", warmup=7, steps=20, eval_every=5)
    return TrainConfig(text=text, batch=2, window=8, **model, **course)


@pytest.fixture(scope="module")
def watched(config, tmp_path_factory):
    """Return an uninterrupted run, its result and its observer."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    watch = Watch()
    result = train_language_model(config, folder, observer=watch.observer())
    return RunFolder(folder), result, watch


@pytest.fixture
def unbroken(watched) -> RunFolder:
    """Return the uninterrupted run, which must not be changed."""
    return watched[0]


@pytest.fixture
def copy(unbroken, tmp_path) -> RunFolder:
    """Return a copy of the uninterrupted run, which may be damaged."""
    shutil.copytree(unbroken.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


class Watch:
    """Observer that stores its calls, and stops the run after a step."""

    def __init__(self, stop: int = NEVER):
        self.calls, self.step, self.stop = [], 0, stop

    def observer(self) -> Observer:
        def begin(step):
            self.step = step
            self.calls.append(("begin", step))

        def progress(step, loss):
            self.step = step
            self.calls.append(("progress", step))

        return Observer(
            plan=lambda pairs: self.calls.append(("plan", dict(pairs))),
            count=lambda characters: self.calls.append(("count", characters)),
            warn=lambda message: self.calls.append(("warn", message)),
            begin=begin,
            progress=progress,
            record=lambda history, state: self.calls.append(("record", history[-1]["step"])),
            should_stop=lambda: self.step >= self.stop,
        )

    def of(self, kind: str) -> list:
        return [call[1] for call in self.calls if call[0] == kind]


def arrays(run: RunFolder) -> dict[str, bytes]:
    """Return the bytes of every array in the newest checkpoint, by path."""
    checkpoints = Checkpoints(run.checkpoints)
    step = checkpoints.steps()[-1]
    assert checkpoints.is_whole(step)
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(checkpoints.folder / str(step))
    found = {"": str(step).encode()}

    def walk(path, node):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, child in items:
            if isinstance(child, dict | list | tuple):
                walk(f"{path}/{name}", child)
            elif child is not None:
                found[f"{path}/{name}"] = np.asarray(child).tobytes()

    walk("", state)
    assert len(found) > 20
    return found


def timeless(run: RunFolder) -> list[dict]:
    return reproducible(run.records.read())


def assert_same(run: RunFolder, other: RunFolder) -> None:
    """Assert that all numbers except the times are equal to the bit."""
    assert timeless(run) == timeless(other)
    assert arrays(run) == arrays(other)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file except the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def damage(run: RunFolder, step: int) -> None:
    """Flip one bit in the largest file of a checkpoint."""
    files = [path for path in (run.checkpoints / str(step)).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_one_record_per_interval(watched, config):
    run, result, _ = watched
    records = [json.loads(line) for line in run.records.path.read_text().splitlines()]
    assert (result.reason, result.step) == ("steps", 20) and result.records == records
    assert result.best == min(records, key=lambda record: record["val_loss"])
    assert [record["step"] for record in records] == [5, 10, 15, 20]
    fields = ["step", "seconds", "train_loss", "grad_norm", "clipped", "skipped"]
    fields += ["overflows", "carry_resets", "rewinds", "val_loss"]
    fields += ["averaging", "learning_rate", "steps_per_second", "tokens_per_second"]
    fields += ["host_memory"]
    ratios = [name for name in records[0] if name.endswith(".update_ratio")]
    assert len(ratios) == 4 and all(0 < record[n] < 10 for record in records for n in ratios)
    assert all(sorted(record) == sorted(fields + ratios) for record in records)
    assert records[0].pop("steps_per_second") is None  # one dispatch, which compiled
    assert records[0].pop("tokens_per_second") is None
    assert all(math.isfinite(value) for record in records for value in record.values())
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds) and seconds[0] > 0
    rates = [record["learning_rate"] / config.learning_rate for record in records]
    assert rates == pytest.approx([4 / 7, 1, 1, 1])  # of the last step, counted from 0
    assert records[-1]["val_loss"] < records[0]["val_loss"]


def test_config_file_describes_run(unbroken, config):
    stored, facts = unbroken.read_config()
    assert stored == replace(config, devices=1)  # too few rows for two devices
    assert facts["text"]["tokens"] == len(TEXT)
    assert facts["text"]["vocabulary"] == "".join(sorted(set(TEXT)))
    (part,) = facts["parts"]
    assert part["step"] == 0
    names = {"lstm_optax", "jax", "jaxlib", "optax", "flax", "numpy", "python"}
    assert part["versions"].keys() >= names
    assert facts["baselines"].keys() >= {"uniform", "5-gram"}
    assert Checkpoints(unbroken.checkpoints).steps() == [15, 20]


def test_observer_call_order(watched):
    _, _, watch = watched
    assert [what for what, _ in watch.calls[:2]] == ["plan", "count"]
    assert watch.calls[2:] == [
        ("begin", 0),
        ("progress", 5),
        ("record", 5),
        ("progress", 8),
        ("progress", 10),
        ("record", 10),
        ("progress", 15),
        ("record", 15),
        ("progress", 16),
        ("progress", 20),
        ("record", 20),
    ]
    (plan,) = watch.of("plan")
    names = ["text", "model", "optimizer", "training", "validation", "device", "run folder"]
    assert list(plan) == names
    assert plan["validation"] == "the last 96 characters, 6 windows, 4 times"
    assert watch.of("count") == [len(TEXT) - 96]
    assert plan["model"].startswith("LSTM, 1 × 8 units, embedding 4, dropout 0.5, ")
    assert plan["optimizer"] == "nadam, learning rate 0.016 constant, warmup 7 steps, clip 1"


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(0,), (8, 8, 15)], ids=str)
def test_resumed_run_equals_uninterrupted(config, unbroken, tmp_path, monkeypatch, stops):
    saved, save = [], Checkpoints.save

    def counted(self, step, *args, **options):
        saved.append(step)
        save(self, step, *args, **options)

    monkeypatch.setattr(Checkpoints, "save", counted)
    run = RunFolder(tmp_path / "run")
    for number, stop in enumerate(stops):
        result = train_language_model(
            config, run.path, resume=number > 0, observer=Watch(stop).observer()
        )
        assert (result.reason, result.step) == ("interrupted", stop)
        assert Checkpoints(run.checkpoints).steps()[-1] == stop
    watch = Watch()
    result = train_language_model(config, run.path, resume=True, observer=watch.observer())
    assert (result.reason, result.step) == ("steps", 20)
    assert ("resumed" in watch.of("plan")[0]) == (stops[-1] > 0)
    assert_same(run, unbroken)
    # An existing checkpoint is not written again: on a full disk that would destroy it.
    assert saved == sorted({*stops, 5, 10, 15, 20})


def test_killed_run_continues_between_records(config, unbroken, tmp_path, monkeypatch):
    save, run = Checkpoints.save, RunFolder(tmp_path / "run")
    config = replace(config, checkpoint_every=6)

    def killed(self, step, *args, **options):
        if step == 15:
            raise KeyboardInterrupt
        save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_language_model(config, run.path)
    assert Checkpoints(run.checkpoints).steps() == [10, 12]
    other = replace(config, checkpoint_every=0)
    train_language_model(other, run.path, resume=True)
    assert_same(run, unbroken)


@pytest.fixture(scope="module")
def regularised(config) -> TrainConfig:
    """Return a configuration with all regularisation and the gate clip."""
    rates = dict(dropout=0.2, embedding_dropout=0.1, weight_dropout=0.3, ar=2.0, tar=1.0)
    options = dict(locked_dropout=True, vary_window=True, guard=2, clip_gates=10.0)
    return replace(config, **options, **rates)


@pytest.mark.slow
def test_resumed_regularised_run_equals_uninterrupted(regularised, tmp_path):
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    watch = Watch()
    train_language_model(regularised, whole.path, observer=watch.observer())
    (plan,) = watch.of("plan")
    rates = "locked dropout 0.2, embedding dropout 0.1, weight dropout 0.3, AR 2, TAR 1"
    assert plan["model"].startswith(f"LSTM, 1 × 8 units, embedding 4, {rates}, ")
    assert ", gate clip ±10, guard" in plan["optimizer"]
    assert plan["training"].startswith("20 steps of 2 × about 8 characters, ")
    for number, stop in enumerate((8, NEVER)):
        observer = Watch(stop).observer()
        train_language_model(regularised, broken.path, resume=number > 0, observer=observer)
    assert_same(broken, whole)
    records = whole.records.read()
    assert records[-1]["val_loss"] < records[0]["val_loss"]
    assert records[-1]["train_loss"] > records[-1]["val_loss"]  # it has AR and TAR


def test_resume_of_finished_run(config, unbroken, copy):
    watch = Watch()
    result = train_language_model(config, copy.path, resume=True, observer=watch.observer())
    assert (result.reason, result.step) == ("steps", 20)
    assert result.records == unbroken.records.read()
    assert watch.of("progress") == [] and watch.of("record") == []
    assert watch.of("plan")[0]["resumed"] == "after step 20 of 20"
    assert_same(copy, unbroken)


@pytest.mark.slow
def test_constant_schedule_accepts_more_steps(config, unbroken, tmp_path):
    run = RunFolder(tmp_path / "run")
    train_language_model(replace(config, steps=10), run.path)
    train_language_model(config, run.path, resume=True)
    assert_same(run, unbroken)
    before = run.config.read_bytes()
    with pytest.raises(
        OptionError, match="--resume with --steps 15: the run has already taken 20 "
    ):
        train_language_model(replace(config, steps=15), run.path, resume=True)
    assert run.config.read_bytes() == before
    assert_same(run, unbroken)


def test_resume_rejects_other_config_or_text(config, copy, unbroken, tmp_path):
    with pytest.raises(OptionError, match="has --hidden 8; leave these flags out"):
        train_language_model(replace(config, hidden=9), copy.path, resume=True)
    other = tmp_path / "other.txt"
    other.write_text(TEXT.replace("pig", "gip"))
    with pytest.raises(OptionError, match="other.txt differs from the text of the run"):
        train_language_model(replace(config, text=other), copy.path, resume=True)
    assert copy.read_config() == unbroken.read_config()
    other.write_text(TEXT)  # another path, the same content
    train_language_model(replace(config, text=other), copy.path, resume=True)
    assert_same(copy, unbroken)


def test_resume_skips_damaged_checkpoint(config, copy, unbroken):
    damage(copy, 20)
    watch = Watch()
    result = train_language_model(config, copy.path, resume=True, observer=watch.observer())
    assert watch.of("warn") == ["the checkpoint of step 20 is damaged; continuing from step 15"]
    assert watch.of("record") == [20] and result.reason == "steps"
    assert_same(copy, unbroken)


def test_resume_needs_intact_checkpoint(config, copy):
    damage(copy, 15)
    damage(copy, 20)
    before = copy.records.path.read_bytes(), copy.config.read_bytes()
    with pytest.raises(CheckpointError, match=r"is damaged \(steps 15, 20\)"):
        train_language_model(config, copy.path, resume=True)
    with pytest.raises(CheckpointError, match=r"is damaged \(steps 15, 20\)"):
        sample_text(copy.path, SampleConfig())
    assert (copy.records.path.read_bytes(), copy.config.read_bytes()) == before
    shutil.rmtree(copy.checkpoints)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train_language_model(config, copy.path, resume=True)


def test_resume_under_other_versions(config, copy, unbroken, monkeypatch):
    (part,) = unbroken.read_config()[1]["parts"]
    old, new = part["versions"], part["versions"] | {"jax": "99", "python": "4"}
    damage(copy, 20)
    monkeypatch.setattr("lstm_optax.runs.train.installed_versions", lambda packages: new)
    watch = Watch()
    train_language_model(config, copy.path, resume=True, observer=watch.observer())
    assert watch.of("warn")[1] == (
        f"the run continues with other versions, python {old['python']} → 4, jax {old['jax']} → "
        f"99: its numbers may differ from those of one version; {copy.config} records both"
    )
    assert copy.read_config()[1]["parts"] == [part, {"step": 15, "versions": new}]
    newer = dict(resume=True, observer=(watch := Watch()).observer())
    monkeypatch.setattr("lstm_optax.runs.train.installed_versions", lambda packages: {"jax": "100"})
    train_language_model(config, copy.path, **newer)  # it has ended: there is nothing to train
    assert watch.of("warn") == []
    assert copy.read_config()[1]["parts"] == [part, {"step": 15, "versions": new}]


def test_held_folder_is_written(config, copy, unbroken, tmp_path):
    """Another thread trains in the folder; it counts as another process."""
    with ThreadPoolExecutor(1) as other:
        held = hold_folder(copy.path)
        other.submit(held.__enter__).result(timeout=10)
        before = snapshot(copy.path)
        for options in (dict(resume=True), dict(overwrite=True), dict()):
            with pytest.raises(
                OptionError, match=f"{copy.path} is in use by process {os.getpid()}"
            ):
                train_language_model(config, copy.path, **options)
        assert snapshot(copy.path) == before
        other.submit(held.__exit__, None, None, None).result(timeout=10)
    train_language_model(config, copy.path, resume=True)
    assert_same(copy, unbroken)


def test_resume_keeps_leftovers(config, copy, unbroken):
    """Of a process that was killed while it saved."""
    shutil.copytree(copy.checkpoints / "20", copy.checkpoints / "25")
    shutil.copytree(copy.checkpoints / "20", copy.checkpoints / "25.orbax-checkpoint-tmp-3")
    (copy.path / "metrics.jsonl.0123456789abcdef.partial").touch()
    train_language_model(config, copy.path, resume=True)
    assert snapshot(copy.path).keys() == snapshot(unbroken.path).keys()


def test_resume_writes_through_a_link(config, copy, tmp_path):
    copy.checkpoints.rename(tmp_path / "elsewhere")
    copy.checkpoints.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OptionError, match="names of a run's files: checkpoints; move them"):
        train_language_model(config, copy.path, resume=True)


def test_damaged_records_are_reported(config, copy, unbroken):
    lines = copy.records.path.read_bytes().splitlines()
    copy.records.path.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))
    watch = Watch()
    train_language_model(config, copy.path, resume=True, observer=watch.observer())
    assert watch.of("warn") == [f"{copy.records.path} is damaged; records lost: 1"]
    assert timeless(copy) == [timeless(unbroken)[i] for i in (0, 2, 3)]
    copy.records.path.unlink()
    result = train_language_model(config, copy.path, resume=True)
    assert (result.records, result.best) == ([], None)


def test_full_disk_keeps_last_checkpoint(config, unbroken, tmp_path, monkeypatch):
    write = "lstm_optax.checkpoints.checkpoint_files.write_atomically"

    def full(path, text):
        if path.stem == "10":
            raise OSError(28, "No space left on device")
        path.write_text(text)

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(write, full)
        with pytest.raises(CheckpointError, match="No space left on device.* step 5 remains"):
            train_language_model(config, run.path)
    assert Checkpoints(run.checkpoints).steps() == [5]
    train_language_model(config, run.path, resume=True)
    assert_same(run, unbroken)


def test_keep_options_choose_checkpoints(config, tmp_path):
    config = replace(config, keep=1, keep_every=10)
    result = train_language_model(config, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert result.best and checkpoints.steps() == sorted({10, 20, result.best["step"]})
    train_language_model(replace(config, keep=3, keep_every=0), tmp_path / "run", resume=True)


DIAGNOSES = [
    f"layer0.{gate}.{what}"
    for gate in GATES
    for what in ("grad_norm", "saturated_low", "saturated_high")
]


@pytest.fixture(scope="module")
def diagnosed(config, tmp_path_factory) -> RunFolder:
    """Return the same run with --diagnose."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "diagnosed")
    train_language_model(replace(config, diagnose=True), run.path)
    return run


def test_diagnosis_leaves_run_unchanged(diagnosed, unbroken):
    plain = [{k: v for k, v in r.items() if k not in DIAGNOSES} for r in timeless(diagnosed)]
    assert plain == timeless(unbroken) and arrays(diagnosed) == arrays(unbroken)
    assert not unbroken.gradients.path.exists()


def test_diagnosis_covers_gates_and_steps(diagnosed, config):
    rows = diagnosed.gradients.read()
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    for record, row in zip(diagnosed.records.read(), rows, strict=True):
        for name in ("h", "c", "reach"):
            assert np.shape(row[name]) == (1, config.window) and np.all(np.array(row[name]) > 0)
        for name in ("gates", "low", "high"):
            assert np.shape(row[name]) == (1, config.window, 4)
        assert len(row["update_ratio"]) == 4 and min(row["update_ratio"].values()) > 0
        norms = np.linalg.norm(row["gates"], axis=1)[0]
        low = np.mean(row["low"], axis=1)[0]
        for k, gate in enumerate(GATES):
            assert record[f"layer0.{gate}.grad_norm"] == pytest.approx(norms[k], rel=1e-3)
            assert record[f"layer0.{gate}.saturated_low"] == pytest.approx(low[k], abs=1e-4)
            assert 0 <= record[f"layer0.{gate}.saturated_high"] <= 1
    assert rows[0]["h"] != rows[-1]["h"]


@pytest.mark.slow
def test_resumed_diagnosis_equals_uninterrupted(config, diagnosed, tmp_path):
    run, settings = RunFolder(tmp_path / "run"), replace(config, diagnose=True)
    train_language_model(settings, run.path, observer=Watch(16).observer())
    with run.gradients.path.open("a") as file:
        file.write('{"step": 99, "h": []}\n{"step": 17')  # as a killed run leaves it
    train_language_model(settings, run.path, resume=True)
    assert_same(run, diagnosed)
    assert run.gradients.path.read_bytes() == diagnosed.gradients.path.read_bytes()


@pytest.mark.slow
def test_patience_stops_early(config, tmp_path):
    still = replace(config, optimizer="sgd", learning_rate=1e-30, patience=2)
    result = train_language_model(still, tmp_path / "run")
    assert (result.reason, result.step) == ("patience", 15)
    assert result.best == result.records[0]
    # The best checkpoint is kept in addition to the newest two.
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5, 10, 15]
    again = train_language_model(still, tmp_path / "run", resume=True)
    assert (again.reason, again.step) == ("patience", 15)


def diverging(config: TrainConfig, **values) -> TrainConfig:
    """Return a configuration whose steps soon make the logits overflow."""
    settings = dict(optimizer="sgd", clip=0.0, learning_rate=3e38, dropout=0.0, warmup=19)
    return replace(config, seed=3, **(settings | values))  # diverges at step 4


def test_divergence_message(config, tmp_path):
    with pytest.raises(Diverged) as error:
        train_language_model(diverging(config), tmp_path / "run")
    message = str(error.value)
    step = int(message.split()[1])
    assert message.startswith(f"step {step} is not finite: loss ") and step < 5
    assert "gradient norm " in message and "largest gradient " in message
    assert re.search(r" in (output|embedding)\.\w+; (.* can cause this; )?the learning ", message)
    assert f"the learning rate was {3e38 * (step - 1) / 19:g}. " in message
    assert message.endswith("Try --learning-rate 1e+38 or --clip 1; no checkpoint was saved")


def test_divergence_keeps_last_finite_checkpoint(config, tmp_path):
    """The kept checkpoint has a finite validation loss."""
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Diverged, match="the checkpoint of step [12] is kept"):
        train_language_model(diverging(config, eval_every=1), run.path)
    losses = [record["val_loss"] for record in run.records.read()]
    good = [number for number, loss in enumerate(losses, 1) if loss is not None]
    assert 0 < len(good) < len(losses)
    assert Checkpoints(run.checkpoints).steps() == good
    assert len(sample_text(run.path, SampleConfig(prompt="c", length=9))) == 10


@pytest.mark.slow
def test_divergence_in_last_step(config, tmp_path):
    with pytest.raises(Diverged) as error:
        train_language_model(diverging(config, warmup=0, steps=1), tmp_path / "run")
    assert str(error.value) == (
        "the validation loss after step 1 is not finite; the learning rate was 3e+38. "
        "Try --learning-rate 1e+38 or --warmup 1 or --clip 1; no checkpoint was saved"
    )


@pytest.mark.slow
def test_guard_stop_message(config, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Diverged) as error:
        train_language_model(diverging(config, guard=2, eval_every=1), run.path)
    message = str(error.value)
    assert " was skipped, too many in a row: loss " in message
    assert "the learning rate was" in message and "Try --learning-rate 1e+38" in message
    step = int(message.split()[1])
    assert message.endswith(f"the checkpoint of step {step} is kept")
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(Checkpoints(run.checkpoints).folder / str(step))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state["params"]))


@pytest.mark.slow
def test_skipped_steps_do_not_advance_schedule(config, tmp_path, monkeypatch):
    """The records contain the learning rate that was used."""

    def poisoned(self, position):
        batch = whole(self, position)
        return batch if position >= 5 else batch._replace(targets=np.full_like(batch.targets, -1))

    whole = Windows.__call__
    monkeypatch.setattr(Windows, "__call__", poisoned)  # no targets: a loss of 0/0
    waiting = replace(config, guard=9, schedule="linear", steps=10, warmup=0, eval_every=10)
    (record,) = train_language_model(waiting, tmp_path / "run").records
    assert record["skipped"] == 5
    assert record["learning_rate"] == pytest.approx(config.learning_rate * (1 - 4 / 10))


def test_invalid_options_leave_folder_unchanged(config, copy, unbroken, tmp_path):
    for bad, error in (
        (replace(config, hidden=0), OptionError),
        (replace(config, text=tmp_path / "missing"), TextError),
        (replace(config, window=10**4), TextError),
    ):
        with pytest.raises(error):
            train_language_model(bad, copy.path, overwrite=True)
        with pytest.raises(error):
            train_language_model(bad, tmp_path / "new")
    with pytest.raises(OptionError, match="already contains a run"):
        train_language_model(config, copy.path)
    assert not (tmp_path / "new").exists()
    assert_same(copy, unbroken)


def test_overwrite_removes_old_run(config, copy, unbroken):
    (copy.path / "notes.txt").write_text("mine")
    (copy.checkpoints / "notes.txt").write_text("mine")
    copy.sample.write_text("of the old run")
    watch = Watch()
    options = dict(overwrite=True, observer=watch.observer())
    train_language_model(replace(config, steps=10), copy.path, **options)
    kept = "keeps what the replaced run did not write: notes.txt, checkpoints/notes.txt"
    assert watch.of("warn") == [f"{copy.path} {kept}"]
    assert (copy.checkpoints / "notes.txt").read_text() == "mine"
    assert [record["step"] for record in copy.records.read()] == [5, 10]
    assert Checkpoints(copy.checkpoints).steps() == [5, 10]
    assert not copy.sample.exists() and (copy.path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_awd_sgd_resumes_averaging_exactly(config, tmp_path, monkeypatch):
    """The test uses the norm of the parameters, which rises, as validation loss."""

    def size_for_loss(measure, carry, batches, sharding):
        del measure, carry, batches, sharding
        return lambda params: float(optax.tree.norm(params))

    monkeypatch.setattr("lstm_optax.runs.train.make_evaluate", size_for_loss)
    config = replace(config, optimizer="awd_sgd", learning_rate=10.0, warmup=0, patience=99)
    config = replace(config, steps=24, eval_every=3)
    run, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "other")
    train_language_model(config, run.path)
    losses = [record["val_loss"] for record in run.records.read()]
    assert oracles.nonmonotone_trigger(losses[:7], 5) == [False] * 6 + [True]
    averaging = [record["averaging"] for record in run.records.read()]
    assert averaging == [False] * 7 + [True]
    first = train_language_model(config, other.path, observer=Watch(stop=21).observer())
    assert (first.reason, first.step) == ("interrupted", 21)  # where averaging starts
    train_language_model(config, other.path, resume=True)
    assert_same(other, run)


@pytest.mark.slow
def test_sample_uses_average(config, tmp_path, monkeypatch):
    config = replace(config, optimizer="optax.contrib.schedule_free_adamw", steps=5, warmup=0)
    records = train_language_model(config, tmp_path / "run").records
    assert [record["averaging"] for record in records] == [True]
    asked = SampleConfig(prompt="cat", length=300, temperature=1.0)
    text = sample_text(tmp_path / "run", asked)
    monkeypatch.setattr(
        "lstm_optax.checkpoints._read_params.eval_params", lambda state, params: params
    )
    assert sample_text(tmp_path / "run", asked) != text


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_reduces_loss(config, tmp_path, name):
    settings = replace(config, optimizer=name, learning_rate=0.01, dropout=0.0, steps=10)
    if name.endswith("sgd"):
        rate = {"sgd": 1.0, "awd_sgd": 4.0}.get(name, 0.1)
        settings = replace(settings, learning_rate=rate)
    records = train_language_model(settings, tmp_path / "run").records
    uniform = math.log(len(set(TEXT)))
    assert records[-1]["val_loss"] < min(uniform, records[0]["val_loss"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        dict(dtype="bfloat16"),
        dict(dtype="float16"),
        dict(embedding=8, tied=True),
        dict(layers=2, dropout=0.3),
    ],
    ids=str,
)
def test_model_variant_reduces_loss(config, tmp_path, values):
    settings = replace(config, **(dict(steps=10, dropout=0.0) | values))
    records = train_language_model(settings, tmp_path / "run").records
    assert records[-1]["val_loss"] < records[0]["val_loss"]


@pytest.mark.slow
def test_sample_starts_with_prompt(unbroken):
    def text(**values):
        return sample_text(unbroken.path, SampleConfig(**(dict(prompt="cat", length=60) | values)))

    greedy = text(temperature=0.0)
    assert len(greedy) == 63 and greedy.startswith("cat") and set(greedy) <= set(TEXT)
    assert greedy == text(temperature=0.0, seed=1)
    assert text() == text() != text(seed=1)
    assert text(prompt=None).startswith(min(TEXT)) and len(text(prompt=None)) == 61


def test_sample_uses_best_checkpoint(unbroken, copy):
    """It is the one of step 20 until the records are changed."""
    config = SampleConfig(prompt="cat", length=300, temperature=1.0)
    best = sample_text(copy.path, config)
    assert best == sample_text(unbroken.path, config)
    records = copy.records.read()
    records[2]["val_loss"] = 0.1
    copy.records.write(records)
    other = sample_text(copy.path, config)
    assert other != best
    warnings = []
    damage(copy, 15)
    assert sample_text(copy.path, config, warn=warnings.append) == best
    assert warnings == ["the checkpoint of step 15 is damaged; using the checkpoint of step 20"]
