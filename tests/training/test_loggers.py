"""The loggers: TensorBoard's event files read back, and recorded stand-ins for W&B and MLflow."""

import sys
from types import SimpleNamespace

import pytest
import toy
from event_files import read_events, shown_points

import lstm_optax as lo
from lstm_optax.training import MlflowLogger, RecordLogger, TensorBoardLogger, WandbLogger
from lstm_optax.training.loggers import scalars_of

STEPS = [4, 8, 12]


def history(*steps, value=0.0):
    return [{"step": n, "seconds": n / 2, "val_loss": n + value, "skipped": 0} for n in steps]


class Written(RecordLogger):
    """A logger that stores what it writes."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def write(self, record):
        self.steps.append(record["step"])


def test_fit_calls_logger_with_each_record():
    log = Written()
    options = dict(eval_every=4, steps_per_dispatch=3)
    lo.fit(toy.STEP, toy.start()[1], toy.batches, steps=12, on_record=log, **options)
    assert log.steps == STEPS


def test_new_logger_writes_whole_history():
    log = Written()
    log([])
    log(history(4, 8))
    log(history(4, 8, 12))
    log(history(4, 8))  # returned to an earlier step
    log(history(4, 8, 12, 16))
    assert log.steps == [4, 8, 12, 16]


def test_scalars_are_the_numbers_of_a_record():
    record = {"step": 3, "seconds": 1.5, "averaging": True, "val_loss": None, "name": "a"}
    record |= {"learning_rate": [0.1, 0.2], "update_ratio": {"kernel": 0.5}}
    assert scalars_of(record) == {
        "seconds": 1.5,
        "averaging": True,
        "learning_rate/0": 0.1,
        "learning_rate/1": 0.2,
        "update_ratio/kernel": 0.5,
    }


def test_tensorboard_continues_resumed_run(tmp_path):
    """The first process wrote step 12, whose checkpoint was lost."""
    pytest.importorskip("tensorboardX")
    with TensorBoardLogger(tmp_path) as log:
        log(history(4, 8))
        log(history(4, 8, 12, value=0.5))
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / "events.out.tfevents.1")  # the names are the times in seconds
    with TensorBoardLogger(tmp_path, {"b1": 0.9, "text": None}) as log:
        log(history(4, 8, 12))
        log(history(4, 8, 12, 16))
    expected = [(step, float(step)) for step in (4, 8, 12, 16)]
    assert shown_points(tmp_path) == {
        "val_loss": expected,
        "skipped": [(n, 0) for n, _ in expected],
    }


def test_tensorboard_hides_points_after_rewind(tmp_path):
    pytest.importorskip("tensorboardX")
    with TensorBoardLogger(tmp_path) as log:
        log(history(4))
        log(history(4, 8, value=0.5))
        log(history(4, 8, 12, value=0.5))
        log(history(4, 8))
        log(history(4, 8, 12))
    assert shown_points(tmp_path)["val_loss"] == [(4, 4.0), (8, 8.0), (12, 12.0)]


def test_tensorboard_keeps_relative_times(tmp_path):
    pytest.importorskip("tensorboardX")
    with TensorBoardLogger(tmp_path) as log:
        log(history(*STEPS))
    (path,) = tmp_path.iterdir()
    times = [event.wall_time for event in read_events(path) if event.summary.value]
    assert [times[-1] - time for time in times[::2]] == pytest.approx([4.0, 2.0, 0.0], abs=1e-3)


class FakeWandb:
    """W&B's `init`, and a run with `step`, `log` and `finish`, as in version 0.31."""

    def __init__(self, offline):
        self.rows, self.inits, self.ends = {}, [], []
        self.offline = offline

    def init(self, *, id, resume, reinit, config, dir):
        assert reinit == "create_new"
        rows = self.rows.setdefault(id, [])
        self.inits.append((id, resume, config, dir))

        def log(data, *, step):
            assert not rows or step > rows[-1][0], "W&B drops what is logged for an earlier step"
            rows.append((step, data))

        def finish(*, exit_code):
            self.ends.append(exit_code)

        step = rows[-1][0] + 1 if rows and not self.offline else 0
        return SimpleNamespace(id=id, step=step, log=log, finish=finish)


@pytest.mark.parametrize("offline", [False, True])
def test_wandb_resumes_run_by_stored_id(offline, tmp_path, monkeypatch):
    fake = FakeWandb(offline)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(KeyboardInterrupt), WandbLogger(tmp_path / "logs", {"hidden": 8}) as log:
        log(history(4, 8))
        raise KeyboardInterrupt
    with WandbLogger(tmp_path / "logs", {"hidden": 8}) as log:
        log(history(4))  # the checkpoint of step 8 was damaged
        log(history(4, 8))
        log(history(4, 8, 12))
    (rows,) = fake.rows.values()
    assert [step for step, _ in rows] == STEPS
    assert rows[0][1] == {"seconds": 2.0, "val_loss": 4.0, "skipped": 0}
    assert fake.ends == [1, 0]
    (first, *rest), (again, *_) = fake.inits
    assert first == again and rest == ["allow", {"hidden": 8}, str(tmp_path / "logs")]


class FakeMlflow:
    """The functions of MLflow that the logger uses, with their signatures in version 3.17."""

    def __init__(self):
        self.runs, self.active, self.ends = {}, None, []
        self.flush_async_logging = lambda: None
        self.MlflowClient = lambda: SimpleNamespace(get_metric_history=self.get_metric_history)

    def start_run(self, run_id=None):
        assert self.active is None and (run_id is None or run_id in self.runs)
        self.active = run_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.active, {"metrics": [], "params": {}})
        return SimpleNamespace(info=SimpleNamespace(run_id=self.active))

    def log_params(self, params):
        self.runs[self.active]["params"] |= params

    def log_metrics(self, metrics, *, step, run_id, synchronous):
        assert not synchronous
        self.runs[run_id]["metrics"] += [(name, step, v) for name, v in metrics.items()]

    def get_metric_history(self, run_id, key):
        metrics = self.runs[run_id]["metrics"]
        return [SimpleNamespace(step=step) for name, step, _ in metrics if name == key]

    def end_run(self, status):
        self.active = None
        self.ends.append(status)


def test_mlflow_resumes_run_by_stored_id(tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with pytest.raises(ValueError), MlflowLogger(tmp_path, {"hidden": 8}) as log:
        log(history(4, 8))
        raise ValueError
    with MlflowLogger(tmp_path, {"hidden": 8}) as log:
        log(history(4))
        log(history(4, 8))
        log(history(4, 8, 12))
    (run,) = fake.runs.values()
    losses = [(step, value) for name, step, value in run["metrics"] if name == "val_loss"]
    assert losses == [(4, 4.0), (8, 8.0), (12, 12.0)]
    assert run["params"] == {"hidden": 8} and fake.ends == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(
    "logger, package, extra",
    [
        (TensorBoardLogger, "tensorboardX", "tensorboard"),
        (WandbLogger, "wandb", "wandb"),
        (MlflowLogger, "mlflow", "mlflow"),
    ],
)
def test_missing_package_is_named(logger, package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    folder = tmp_path / "logs"
    with pytest.raises(ImportError) as error:
        logger(folder)
    assert str(error.value) == f"{package} is not installed: pip install 'lstm_optax[{extra}]'"
    assert not folder.exists()
