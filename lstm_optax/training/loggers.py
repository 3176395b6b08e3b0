"""Loggers: write the records of a run to TensorBoard, Weights & Biases or MLflow."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from os import PathLike
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from lstm_optax.records import record_line, write_atomically
from lstm_optax.training.records import Record
from lstm_optax.training.state import TrainState

Config = Mapping[str, Any]

NEVER = -1  # the last step of a logger that has written no record


class RecordLogger:
    """Base of the loggers: a callback for `on_record` of `fit`, and a context manager.

    A logger writes all records of the history that it has not written yet. A resumed run passes its
    whole history, so its curves have no gaps, and no point is written twice.
    """

    def __init__(self):
        self._last: int = NEVER  # step of the last record that was written

    def __call__(self, history: Sequence[Record], state: TrainState | None = None) -> None:
        """Write the new records of the history; the state is not used."""
        new = list(takewhile(lambda record: record["step"] > self._last, reversed(history)))
        for record in reversed(new):
            self.write(record)
        if new:
            self._last = new[0]["step"]
        elif history:
            self._return_to(history[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool = False) -> None:
        """Write what is pending, and end the run in the other program."""

    def write(self, record: Record) -> None:
        """Write a record with a step above that of the one before."""
        raise NotImplementedError

    def _return_to(self, record: Record) -> None:
        """Handle a record of a step that was written before; by default the first one is kept."""


class TensorBoardLogger(RecordLogger):
    """Write the numbers of each record to event files for TensorBoard.

    A resumed run starts a new file with `purge_step`, which hides the points of earlier files, and
    writes its history again: a killed process may have lost the last points. A run that returned
    to an earlier step hides the points from that step on.

    Args:
      folder: for the event files; TensorBoard shows it as one run. It is created.
      config: hyper-parameters for the HParams tab; values that are not numbers become text.

    Raises:
      ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | PathLike[str], config: Config | None = None):
        super().__init__()
        self._summary_writer: Any = import_extra("tensorboardX", "tensorboard").SummaryWriter
        self._folder, self._config = Path(folder), config or {}
        self._writer: Any = None

    def __call__(self, history: Sequence[Record], state: TrainState | None = None) -> None:
        """Write the new records of the history; the state is not used."""
        if history:
            self._now: float = time() - history[-1]["seconds"]
        super().__call__(history, state)

    def close(self, *, failed: bool = False) -> None:
        """Write what is pending, and close the event file."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def write(self, record: Record) -> None:
        if not self._writer:
            self._open(record["step"])
        write_scalars(self._writer, record, self._now + record["seconds"])

    def _return_to(self, record: Record) -> None:
        proto = import_extra("tensorboardX.proto.event_pb2", "tensorboard")
        # TensorBoard hides the points of this step and of later ones
        restart = proto.SessionLog(status=proto.SessionLog.START)
        self._writer.file_writer.add_event(proto.Event(step=record["step"], session_log=restart))
        self.write(record)
        self._last = record["step"]

    def _open(self, purge_step: int) -> None:
        self._writer = self._summary_writer(str(self._folder), purge_step=purge_step, flush_secs=5)
        if self._config:
            write_hyper_parameters(self._writer, self._config, ("val_loss",))


class WandbLogger(RecordLogger):
    """Write the numbers of each record to a run of Weights & Biases.

    The id of the run is stored in the folder, and the next logger with this folder resumes the run.
    In W&B's offline mode it writes what follows to a second local run with the same id.
    Project, entity and mode come from W&B's own settings, such as the variables WANDB_PROJECT and
    WANDB_MODE.

    Args:
      folder: for the id and for W&B's local files. It is created.
      config: the configuration that W&B shows.

    Raises:
      ImportError: wandb is not installed.
    """

    def __init__(self, folder: str | PathLike[str], config: Config | None = None):
        super().__init__()
        wandb = import_extra("wandb", "wandb")
        self._file = _run_file(folder, "wandb")
        stored = _read_run(self._file)
        run_id = stored.get("id") or uuid4().hex
        options: dict[str, Any] = dict(config=dict(config or {}), dir=str(folder))
        # a run that the caller has open is left alone
        self._run: Any = wandb.init(id=run_id, resume="allow", reinit="create_new", **options)
        # W&B knows the next step of a resumed run, but not in its offline mode
        self._last: int = self._run.step - 1 if self._run.step else stored.get("step", NEVER)
        self._store()

    def close(self, *, failed: bool = False) -> None:
        """Upload what is pending, and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))

    def write(self, record: Record) -> None:
        self._run.log(scalars_of(record), step=record["step"])
        self._last = record["step"]
        self._store()

    def _store(self) -> None:
        write_atomically(self._file, record_line({"id": self._run.id, "step": self._last}))


class MlflowLogger(RecordLogger):
    """Write the numbers of each record to a run of MLflow.

    The id of the run is stored in the folder, and the next logger with this folder resumes the run.
    Server and experiment come from MLflow's own settings, such as the variables
    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

    Args:
      folder: for the id. It is created.
      config: the parameters of the run.

    Raises:
      ImportError: mlflow is not installed.
    """

    def __init__(self, folder: str | PathLike[str], config: Config | None = None):
        super().__init__()
        self._mlflow: Any = import_extra("mlflow", "mlflow")
        file = _run_file(folder, "mlflow")
        stored = _read_run(file).get("id")
        self._run_id: str = self._mlflow.start_run(run_id=stored).info.run_id
        if not stored:
            write_atomically(file, record_line({"id": self._run_id}))
            self._mlflow.log_params(dict(config or {}))
        written = self._mlflow.MlflowClient().get_metric_history(self._run_id, "seconds")
        self._last: int = max((metric.step for metric in written), default=NEVER)

    def close(self, *, failed: bool = False) -> None:
        """Write what is pending, and mark the run as finished or failed."""
        self._mlflow.flush_async_logging()
        self._mlflow.end_run("FAILED" if failed else "FINISHED")

    def write(self, record: Record) -> None:
        options: dict[str, Any] = dict(step=record["step"], run_id=self._run_id)
        self._mlflow.log_metrics(scalars_of(record), **options, synchronous=False)


def scalars_of(record: Record) -> dict[str, float]:
    """Return the numbers of a record by name, except its step; nested ones as "name/part"."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            inner = scalars_of({str(part): entry for part, entry in value.items()})
            found |= {f"{name}/{part}": number for part, number in inner.items()}
        elif isinstance(value, int | float) and name != "step":
            found[name] = value
    return found


def write_scalars(writer: Any, record: Record, walltime: float) -> None:
    """Write the numbers of a record, except its time, to a `SummaryWriter` of tensorboardX."""
    for name, value in scalars_of(record).items():
        if name != "seconds":
            writer.add_scalar(name, value, record["step"], walltime=walltime)


def write_hyper_parameters(writer: Any, values: Config, metrics: Sequence[str]) -> None:
    """Write hyper-parameters to a `SummaryWriter` of tensorboardX, with the names of metrics."""
    from tensorboardX.summary import hparams

    known = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in values.items()}
    for summary in hparams(known, dict.fromkeys(metrics, 0.0)):
        writer.file_writer.add_summary(summary)


def import_extra(package: str, extra: str) -> Any:
    """Return an optional package; raise ImportError with the command that installs it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{package} is not installed: pip install 'lstm_optax[{extra}]'"
        ) from error


def _run_file(folder: str | PathLike[str], name: str) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{name}_run.json"


def _read_run(file: Path) -> Record:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
