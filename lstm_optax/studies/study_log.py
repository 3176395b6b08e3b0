"""The records of a running study: appended to a file, or kept in memory without one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lstm_optax.checks import format_value
from lstm_optax.records import (
    Record,
    append_record,
    as_json,
    drop_torn_line,
    provenance,
    read_records,
)
from lstm_optax.runs.folder_lock import hold_folder
from lstm_optax.studies.study_records import (
    RECORDS_FILE,
    StudyError,
    StudyRecords,
    collect_records,
    read_study,
)
from lstm_optax.studies.trial import Trial

LONGEST_WAIT = 60.0  # seconds, for other processes of the same study that write a record


class StudyLog:
    """Writes the records of a study; an interrupted study continues from its folder.

    The process holds the folder while it writes a record, so several may share a study; `hold`
    keeps others away for longer.

    Args:
      folder: of the study, which may not exist yet; None to keep the records in memory.
      kind: "sweep", "compare" or "reproduce".
      task: facts about the task, for the records.
      settings: everything else that the results depend on.
      command: the command, for the records.

    The folder is written when the first record is added.

    Raises:
      StudyError: the folder holds another study, other settings, or records of other versions, or
        a setting is no JSON.
    """

    def __init__(
        self, folder: Path | None, kind: str, task: Record, settings: Record, command: str = ""
    ):
        head = {"record": "study", "kind": kind, "task": task, "settings": settings}
        head = as_json(head | {"made_by": provenance(command)})
        self.path: Path | None = folder / RECORDS_FILE if folder else None
        _check_json(task | settings)
        self._records: list[Record] = []
        self._head: Record = head
        self._begun: bool = self._find_study()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A context in which no other process adds records.

        Raises:
          OptionError: another process holds the folder.
          StudyError: another process has begun another study in it.
        """
        with hold_folder(self.path.parent) if self.path else nullcontext():
            self._begun = self._begun or self._find_study()
            yield

    def add(self, record: Mapping[str, Any]) -> Record:
        """Append a record, and return it as JSON stores it.

        Raises:
          OptionError: another process holds the folder for longer than it writes a record.
        """
        stored: Record = as_json(dict(record))
        if self.path is None:
            self._records += [stored] if self._records else [self._head, stored]
            return stored
        with hold_folder(self.path.parent, wait=LONGEST_WAIT):
            self._begun = self._begun or self._find_study()
            drop_torn_line(self.path)  # after the check: the file may be somebody else's
            if not self._begun:
                append_record(self.path, self._head)
                self._begun = True
            append_record(self.path, stored)
        return stored

    def _find_study(self) -> bool:
        """Return whether the study has begun; raise StudyError if the folder holds another."""
        if self.path is None:
            return False
        if self.path.is_symlink():
            raise StudyError(f"{self.path} is a symbolic link, not records: name another folder")
        if _is_torn_head(self.path):
            return False
        _check_same_study(self.path.parent, read_study(self.path.parent).study, self._head)
        return True

    def read(self) -> StudyRecords:
        """Return all records; other processes may have added some."""
        if self.path is None or not self._begun:
            return collect_records(self._records or [self._head])
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
        changed = next(name for name in (new | old) if old.get(name) != new.get(name))
        raise StudyError(
            f"{folder} holds records of {changed} {old.get(changed)}, but {new.get(changed)} is "
            f"installed: {remedy}"
        )


def _check_json(settings: Record) -> None:
    """Raise StudyError for the first setting that JSON cannot store."""
    for name, value in settings.items():
        try:
            json.dumps(as_json(value))
        except (TypeError, ValueError):
            raise StudyError(
                f"{name} is {format_value(value)}, which the records cannot store: use numbers, "
                "texts, lists and dictionaries of them"
            ) from None


def _is_torn_head(path: Path) -> bool:
    """Return whether a file does not exist or holds no more than a part of a study's first line."""
    data, begin = path.read_bytes() if path.exists() else b"", b'{"record": "study"'
    return data[: len(begin)] == begin[: len(data)] and not (data and read_records(path))
