"""The event files for TensorBoard, read back record by record."""

import math

import pytest
from event_files import read_events
from made_records import made_study, study_record, trial_records, write_study

from lstm_optax.report import export_tensorboard, tensorboard
from lstm_optax.studies import StudyError

RATE = {"learning_rate": 1e-2}


@pytest.fixture
def events(tmp_path):
    hyper = RATE | {"nesterov": True, "schedule": "cosine"}
    records = [study_record()]
    records += trial_records("a/b <x>", hyper, 3, [0.5, math.nan], seconds=[1.5, 3.0])
    folder = write_study(tmp_path / "study", records)
    pytest.importorskip("tensorboardX")
    assert export_tensorboard(folder, tmp_path / "events") == 1
    (path,) = (tmp_path / "events").rglob("events.*")
    assert path.parent.name == "a_b_x_learning_rate=0.01_nesterov=True_schedule=cosine_seed=3"
    return read_events(path)


@pytest.mark.slow
def test_events_hold_scalars(events):
    found = [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
    assert ("validation", 10, 0.5, 1.5) in found
    assert {name for name, *_ in found} == {
        "loss", "grad_norm", "learning_rate", "validation", "test",
    }  # fmt: skip
    assert [step for name, step, *_ in found if name == "validation"] == [10]  # 20: not finite
    assert [step for name, step, *_ in found if name == "grad_norm"] == [10, 20]


def test_events_hold_hyper_parameters(events):
    proto = pytest.importorskip("tensorboardX.proto.plugin_hparams_pb2")
    contents = {
        value.tag: proto.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    }
    given = contents["_hparams_/session_start_info"].session_start_info.hparams
    assert given["learning_rate"].number_value == 1e-2
    assert given["schedule"].string_value == "cosine"
    assert given["nesterov"].bool_value is True
    assert given["optimizer"].string_value == "a/b <x>" and given["seed"].number_value == 3
    metrics = contents["_hparams_/experiment"].experiment.metric_infos
    assert [info.name.tag for info in metrics] == ["validation", "test"]


def test_export_keeps_other_files(tmp_path):
    pytest.importorskip("tensorboardX")
    folder = write_study(tmp_path, made_study("sweep", optimizers={"a": 1e-2}))
    with pytest.raises(StudyError, match="is a file or not empty: name another folder"):
        export_tensorboard(folder, folder)


def test_export_names_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(StudyError, match=r"pip install 'lstm_optax\[tensorboard\]'"):
        export_tensorboard(tmp_path, tmp_path / "events")


def test_trials_have_folders_of_their_own():
    names = tensorboard._folder_names(["a b", "a/b", "a<b"])
    assert len(set(names.values())) == 3
