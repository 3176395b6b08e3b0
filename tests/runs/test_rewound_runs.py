"""Runs with steps that are not finite: rewinds and events."""

from dataclasses import replace

import numpy as np
import pytest
from test_train import TEXT, Watch, assert_same

from lstm_optax import Checkpoints, TrainConfig, train_language_model
from lstm_optax.data import Windows
from lstm_optax.records import read_records
from lstm_optax.runs import Diverged, OptionError
from lstm_optax.runs.run_folder import RunFolder

NEVER = 10**9


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """Return 48 steps with a record every 24; dispatches end at multiples of 8."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT)
    model = dict(hidden=8, embedding=4, batch=2, window=8, schedule="constant")
    return TrainConfig(text=text, steps=48, eval_every=24, rewind=2, **model)


@pytest.fixture
def poison(monkeypatch):
    """Make the targets of some positions of the training text invalid, so that the loss is NaN."""
    whole = Windows.__call__

    def at(*positions):
        def poisoned(self, position):
            batch = whole(self, position)
            bad = position in positions and len(self.rows.codes) > 200  # not the validation text
            return batch._replace(targets=np.full_like(batch.targets, 999)) if bad else batch

        monkeypatch.setattr(Windows, "__call__", poisoned)

    return at


def train(config, folder, *, stop=NEVER, resume=False) -> tuple[RunFolder, Watch]:
    watch = Watch(stop)
    train_language_model(config, folder, resume=resume, observer=watch.observer())
    return RunFolder(folder), watch


def rows(run: RunFolder) -> list[tuple]:
    """Return the rows of metrics.jsonl: steps, or events with their steps."""
    found = [row or {} for row in read_records(run.records.path)]
    return [
        (row["event"], row["step"], row["failed_step"]) if "event" in row else row["step"]
        for row in found
    ]


@pytest.mark.slow
def test_run_rewinds_to_last_checkpoint(config, poison, tmp_path):
    poison(26)
    run, watch = train(config, tmp_path / "run")
    (warning,) = watch.of("warn")
    assert warning.startswith(
        "step 27 is not finite: loss nan, gradient norm nan, largest gradient"
    )
    assert warning.endswith("; returned to step 24, with half the learning rate")
    assert rows(run) == [24, ("rewind", 24, 27), 48]
    first, last = run.records.read()
    assert (first["rewinds"], last["rewinds"]) == (0, 1)
    assert last["learning_rate"] == pytest.approx(first["learning_rate"] / 2)
    assert "at most 2 rewinds" in watch.of("plan")[0]["optimizer"]


@pytest.mark.slow
def test_resumed_rewound_run_equals_unbroken(config, poison, tmp_path):
    poison(3, 44)  # the first rewind is to the beginning, the second to step 24
    unbroken, _ = train(config, tmp_path / "unbroken")
    assert rows(unbroken) == [("rewind", 0, 4), 24, ("rewind", 24, 37), 48]
    for name, stops in {"early": (8, 16), "late": (32, 40), "each": range(8, 48, 8)}.items():
        for number, stop in enumerate((*stops, NEVER)):
            run, _ = train(config, tmp_path / name, stop=stop, resume=number > 0)
        assert_same(run, unbroken)
        assert rows(run) == rows(unbroken)


@pytest.mark.soak
def test_interruptions_keep_last_record(config, poison, tmp_path, monkeypatch):
    """Of two in one interval, whose record is not the best; it is what the run rewinds to."""
    monkeypatch.setattr("lstm_optax.runs.keeper.best_record", lambda history: history[0])
    poison(67)
    longer = replace(config, steps=72)
    unbroken, _ = train(longer, tmp_path / "unbroken")
    assert rows(unbroken) == [24, 48, ("rewind", 48, 68), 72]
    for stop in (56, 64, NEVER):
        run, _ = train(longer, tmp_path / "run", stop=stop, resume=stop > 56)
    assert_same(run, unbroken)


@pytest.mark.slow
def test_run_rewinds_past_checkpoints_between_records(config, poison, tmp_path, monkeypatch):
    monkeypatch.setattr("lstm_optax.runs.keeper.best_record", lambda history: None)
    poison(45)
    unbroken, _ = train(config, tmp_path / "unbroken")
    assert rows(unbroken) == [24, ("rewind", 24, 46), 48]
    often, _ = train(replace(config, checkpoint_every=4), tmp_path / "run")
    assert_same(often, unbroken)
    assert rows(often) == rows(unbroken)
    assert Checkpoints(often.checkpoints).steps() == [44, 48]


@pytest.mark.slow
def test_killed_rewound_run_equals_unbroken(config, poison, tmp_path, monkeypatch):
    """A kill after the rewind and before the next checkpoint repeats the rewind, once."""
    poison(26)
    unbroken, _ = train(config, tmp_path / "unbroken")

    def killed(self, step, *args, **options):
        if step == 48:
            raise KeyboardInterrupt
        save(self, step, *args, **options)

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert rows(RunFolder(tmp_path / "run")) == [24, ("rewind", 24, 27), 48]
    run, _ = train(config, tmp_path / "run", resume=True)
    assert_same(run, unbroken)
    assert rows(run) == rows(unbroken)


@pytest.mark.slow
def test_run_stops_after_its_rewinds(config, poison, tmp_path):
    poison(*range(26, 99))
    folder = tmp_path / "run"
    for resume in (False, True):
        with pytest.raises(Diverged, match="step 25 is not finite: loss nan.* step 24 is kept"):
            train(config, folder, resume=resume)
        events = [("rewind", 24, 27), ("rewind", 24, 25), ("stop", 25, 25)]
        assert rows(RunFolder(folder)) == [24, *events]


@pytest.mark.slow
def test_guarded_run_rewinds_when_guard_gives_up(config, poison, tmp_path):
    poison(4, 25, 26)
    run, watch = train(replace(config, guard=2), tmp_path / "run")
    assert [r["skipped"] for r in run.records.read()] == [1, 0]
    assert rows(run) == [24, ("rewind", 24, 27), 48]
    assert "too many in a row" in watch.of("warn")[0]


def test_rewind_refuses_averaged_steps(config, tmp_path):
    averaging = replace(config, optimizer="optax.contrib.schedule_free_adamw")
    message = "--rewind: optax.contrib.schedule_free_adamw averages steps that cannot be scaled"
    with pytest.raises(OptionError, match=message):
        train(averaging, tmp_path / "run")
    assert not (tmp_path / "run").exists()
