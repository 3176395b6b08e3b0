"""Records of a study: one JSON line for each event of each trial, and their reader.

The lines of `records.jsonl`, by the value of "record":

    study       kind ("sweep", "compare" or "reproduce"), task, settings, made_by
    optimizer   optimizer, parameters, state_bytes_per_parameter, compile_seconds
    trial       trial, optimizer, hyper, seed, part ("tuning" or "report")
    evaluation  trial, step, seconds, loss, grad_norm, learning_rate, and the task's metrics
    end         trial, status ("finished", "diverged" or "stopped"), step, seconds
    choice      optimizer, hyper, value, edge (null, "low" or "high"), void, trials

`trial` is a unique name, such as "nadam learning_rate=0.003 seed=1000". `seconds` is the time of
the trial, without compilation; slots that are stacked on a device have equal shares of its time. A
trial with status "stopped" was ended by successive halving. Numbers that are not finite are stored
as null.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstm_optax.records import Record, read_records

RECORDS_FILE = "records.jsonl"
HEAD_KEYS = ("kind", "task", "settings", "made_by")


class StudyError(ValueError):
    """A study that cannot be read, started or continued; the message says what to do."""


@dataclass(frozen=True)
class TrialRecords:
    """All records of one trial.

    Attributes:
      name: of the trial.
      optimizer: name of the optimizer.
      hyper: hyper-parameters by name, with the learning rate.
      seed: of the initial parameters, the batches and the dropout.
      part: "tuning" for the search of hyper-parameters, "report" for fresh seeds at the best ones.
      evaluations: records in the order of the steps.
      end: the last record; None if the trial was interrupted.
    """

    name: str
    optimizer: str
    hyper: Mapping[str, Any]
    seed: int
    part: str
    evaluations: list[Record] = field(default_factory=list)
    end: Record | None = None

    @property
    def diverged(self) -> bool:
        """Whether a loss, gradient or metric of the trial was not finite."""
        return self.end is not None and self.end["status"] == "diverged"


@dataclass(frozen=True)
class StudyRecords:
    """All records of a study.

    Attributes:
      study: the record of the study.
      optimizers: the record of each optimizer, by name.
      trials: by name, in the order in which they began.
      choices: the chosen hyper-parameters of each optimizer, by name; none before its tuning ends.
    """

    study: Record
    optimizers: dict[str, Record]
    trials: dict[str, TrialRecords]
    choices: dict[str, Record]


def read_study(folder: Path) -> StudyRecords:
    """Read the records of a study's folder.

    An evaluation that a trial recorded twice, because the study was interrupted and resumed,
    counts once.

    Raises:
      StudyError: no records, lines that are not records, or records of several studies or versions.
    """
    path = folder / RECORDS_FILE
    if not path.is_file():
        raise StudyError(f"{folder} has no {RECORDS_FILE}: name the folder of a sweep or a compare")
    records: list[Record] = []
    for number, record in enumerate(read_records(path), 1):
        if record is None or "record" not in record:
            raise StudyError(f"line {number} of {path} is not a record: the file is damaged")
        records.append(record)
    heads = [record for record in records if record["record"] == "study"]
    if not heads:
        raise StudyError(f"{path} has no record of the study: the file is damaged")
    if missing := [key for key in HEAD_KEYS for head in heads if key not in head]:
        raise StudyError(f"{path} has a study without {missing[0]!r}: the file is damaged")
    if any(head[key] != heads[0][key] for head in heads for key in ("kind", "task", "settings")):
        raise StudyError(f"{path} has records of several studies: run each in its own folder")
    versions = {str(head["made_by"].get("versions")) for head in heads}
    if len(versions) > 1:
        raise StudyError(
            f"{path} has records of {len(versions)} sets of package versions, which cannot be "
            "compared: run the study again in another folder"
        )
    try:
        return collect_records([heads[0], *records])
    except (KeyError, TypeError) as error:
        raise StudyError(f"{path} has a record without {error}: the file is damaged") from error


def collect_records(records: list[Record]) -> StudyRecords:
    """Return the records of a study, sorted by trial; the first must be that of the study."""
    result = StudyRecords(records[0], {}, {}, {})
    evaluations: dict[str, dict[int, Record]] = {}
    ends: dict[str, Record] = {}
    for record in records:
        kind = record["record"]
        if kind == "optimizer":
            result.optimizers[record["optimizer"]] = record
        elif kind == "choice":
            result.choices[record["optimizer"]] = record
        elif kind == "trial":
            evaluations.setdefault(record["trial"], {})
        elif kind == "evaluation":
            evaluations.setdefault(record["trial"], {})[record["step"]] = record
        elif kind == "end":
            ends[record["trial"]] = record
    for record in records:
        if record["record"] == "trial":
            name = record["trial"]
            rows = [evaluations[name][step] for step in sorted(evaluations[name])]
            parts = (record["optimizer"], record["hyper"], record["seed"], record["part"])
            result.trials[name] = TrialRecords(name, *parts, rows, ends.get(name))
    return result
