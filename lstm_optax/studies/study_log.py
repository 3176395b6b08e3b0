"""The records of a running study: appended to a file, or kept in memory without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_optax.records import Record, append_record, as_json, drop_torn_line, provenance
from lstm_optax.studies.study_records import (
    RECORDS_FILE,
    StudyError,
    StudyRecords,
    collect_records,
    read_study,
)
from lstm_optax.studies.trial import Trial


class StudyLog:
    """Writes the records of a study; an interrupted study continues from its folder.

    Args:
      folder: of the study, which may not exist yet; None to keep the records in memory.
      kind: "sweep" or "compare".
      task: facts about the task, for the records.
      settings: everything else that the results depend on.
      command: the command, for the records.

    Raises:
      StudyError: the folder holds another study, other settings, or records of other versions.
    """

    def __init__(
        self, folder: Path | None, kind: str, task: Record, settings: Record, command: str = ""
    ):
        head = {"record": "study", "kind": kind, "task": task, "settings": settings}
        head = as_json(head | {"made_by": provenance(command)})
        self.path: Path | None = folder / RECORDS_FILE if folder else None
        self._records: list[Record] = []
        if self.path is not None and self.path.exists():
            assert folder is not None
            _check_same_study(folder, read_study(folder).study, head)
            drop_torn_line(self.path)  # after the check: the file may be somebody else's
        else:
            self.add(head)

    def add(self, record: Mapping[str, Any]) -> Record:
        """Append a record, and return it as JSON stores it."""
        stored: Record = as_json(dict(record))
        if self.path is None:
            self._records.append(stored)
        else:
            append_record(self.path, stored)
        return stored

    def read(self) -> StudyRecords:
        """Return all records; other processes may have added some."""
        if self.path is None:
            return collect_records(self._records)
        return read_study(self.path.parent)

    def begin(self, trial: Trial) -> None:
        """Record the start of a trial."""
        facts = dict(trial=trial.name, optimizer=trial.optimizer, hyper=dict(trial.hyper))
        self.add({"record": "trial", **facts, "seed": trial.seed, "part": trial.part})

    def unfinished(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials that have not ended."""
        known = self.read().trials
        return [t for t in trials if t.name not in known or known[t.name].end is None]


def _check_same_study(folder: Path, found: Record, wanted: Record) -> None:
    """Raise StudyError if the records of a folder belong to another study."""
    remedy = f"name another folder, or remove {folder}"
    if found["kind"] != wanted["kind"]:
        raise StudyError(f"{folder} holds a {found['kind']}, not a {wanted['kind']}: {remedy}")
    for part in ("task", "settings"):
        names = [*found[part], *(name for name in wanted[part] if name not in found[part])]
        for name in names:
            old, new = found[part].get(name), wanted[part].get(name)
            if old != new:
                raise StudyError(
                    f"{folder} holds a study with {name} {old}, but this one has {new}: {remedy}"
                )
    old, new = (head["made_by"]["versions"] for head in (found, wanted))
    if old != new:
        changed = [n for n in new if old.get(n) != new[n]]
        raise StudyError(
            f"{folder} holds records of {changed[0]} {old.get(changed[0])}, but "
            f"{new[changed[0]]} is installed: {remedy}"
        )
