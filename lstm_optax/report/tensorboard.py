"""Export the trials of a study to TensorBoard: scalars, and hyper-parameters with results."""

import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lstm_optax.studies.study_records import StudyError, TrialRecords, read_study
from lstm_optax.training.loggers import import_extra, write_hyper_parameters, write_scalars


def export_tensorboard(folder: str | PathLike[str], directory: str | PathLike[str]) -> int:
    """Write an event file for each trial, which TensorBoard shows as a run.

    The scalars are those of the evaluations; the time of an event is the seconds of the trial. The
    HParams tab shows the hyper-parameters, the seed and the part with the task's metrics.

    Args:
      folder: of a sweep or a comparison.
      directory: for the event files; it is created.

    Returns:
      The number of trials.

    Raises:
      StudyError: the folder holds no study, the directory is not empty, or tensorboardX is not
        installed.
    """
    try:
        writer_class = import_extra("tensorboardX", "tensorboard").SummaryWriter
    except ImportError as error:
        raise StudyError(str(error)) from None
    study, directory = read_study(Path(folder)), Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StudyError(f"{directory} is a file or not empty: name another folder")
    task = study.study["task"]
    names = _folder_names(study.trials)
    for trial in study.trials.values():
        with writer_class(str(directory / names[trial.name])) as writer:
            _write_trial(writer, trial, (task["metric"], task["test_metric"]))
    return len(names)


def _write_trial(writer: Any, trial: TrialRecords, metrics: Sequence[str]) -> None:
    hyper = {"optimizer": trial.optimizer, "seed": trial.seed, "part": trial.part}
    write_hyper_parameters(writer, {**hyper, **trial.hyper}, metrics)
    for row in trial.evaluations:
        write_scalars(writer, row, row["seconds"])


def _folder_names(trials: Iterable[str]) -> dict[str, str]:
    """Return a folder's name for each trial, of characters that every system allows."""
    names: dict[str, str] = {}
    for trial in trials:
        name = re.sub(r"[^\w.=+-]+", "_", trial).strip(".")[:150]
        names[trial] = f"{name}_{len(names)}" if name in names.values() else name
    return names
