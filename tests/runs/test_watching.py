"""The loggers of a run: started by its options, and never the end of a training."""

import sys
from dataclasses import replace

import pytest
from event_files import shown_points

from lstm_optax import TrainConfig, train_language_model
from lstm_optax.runs import Observer, OptionError
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.runs.watching import CLASSES
from lstm_optax.training import RecordLogger

MODEL = dict(batch=2, window=8, hidden=4, embedding=4, eval_every=2, schedule="constant")


@pytest.fixture
def config(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat and the dog " * 20)
    return TrainConfig(text=text, steps=4, **MODEL)


class Broken(RecordLogger):
    """A logger that fails at its first record and when it is closed."""

    def __init__(self, folder, config):
        super().__init__()
        self.config = config

    def write(self, record):
        raise ConnectionError("the server is gone\nand more")

    def close(self, *, failed=False):
        raise AssertionError("a logger that failed is dropped")


@pytest.mark.slow
def test_run_writes_all_records_for_tensorboard(config, tmp_path):
    pytest.importorskip("tensorboardX")
    run = RunFolder(tmp_path / "run")
    train_language_model(replace(config, tensorboard=True), run.path)
    longer = replace(config, tensorboard=True, steps=6)
    train_language_model(longer, run.path, resume=True)
    points, records = shown_points(run.logs), run.records.read()
    expected = [(record["step"], pytest.approx(record["val_loss"])) for record in records]
    assert len(records) == 3 and points["val_loss"] == expected
    names = "train_loss grad_norm clipped skipped learning_rate host_memory averaging".split()
    assert points.keys() >= {"steps_per_second", "tokens_per_second", *names}
    assert run.logs in run.files()
    train_language_model(replace(config, steps=2), run.path, overwrite=True)
    assert not run.logs.exists()


@pytest.mark.slow
def test_failing_logger_does_not_end_training(config, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setitem(CLASSES, "tensorboard", Broken)
    warnings, path = [], tmp_path / "run"
    observer = Observer(warn=warnings.append)
    result = train_language_model(replace(config, tensorboard=True), path, observer=observer)
    assert result.step == 4 and len(RunFolder(path).records.read()) == 2
    message = f"--tensorboard stopped: the server is gone; {path / 'metrics.jsonl'} has all records"
    assert warnings == [message]


def test_logger_that_cannot_start_is_an_error(config, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")

    def refuse(folder, config):
        raise PermissionError("log in first")

    monkeypatch.setitem(CLASSES, "tensorboard", refuse)
    with pytest.raises(OptionError, match="^--tensorboard: log in first$"):
        train_language_model(replace(config, tensorboard=True), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").files()


@pytest.mark.parametrize("option", ["tensorboard", "wandb", "mlflow"])
def test_missing_logger_package_names_extra(config, option, tmp_path, monkeypatch):
    package = {"tensorboard": "tensorboardX"}.get(option, option)
    monkeypatch.setitem(sys.modules, package, None)
    message = f"^--{option}: {package} is not installed: pip install 'lstm_optax\\[{option}\\]'$"
    with pytest.raises(OptionError, match=message):
        train_language_model(replace(config, **{option: True}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
