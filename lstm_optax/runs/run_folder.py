"""The folder of a run: paths, configuration and logs; imports no JAX."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from lstm_optax.records import Record, open_no_link, write_atomically
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.folder_lock import LOCK_FILE
from lstm_optax.runs.new_folder import make_new_folder, remove_if_empty
from lstm_optax.runs.options import MAX_VALIDATION, TrainConfig
from lstm_optax.runs.own_files import (
    CHECKPOINTS,
    CONFIG,
    LOG,
    LOGS,
    MANIFEST,
    existing_files,
    foreign_files,
    join_names,
    remove_leftovers,
    remove_run,
    write_manifest,
)
from lstm_optax.runs.step_log import StepLog

RUNS = Path("runs")


class RunFolder:
    """The files of a run.

    These are config.json, metrics.jsonl, loss.png, sample.txt and checkpoints/; with --diagnose
    also gradients.jsonl and gradients.png, with --tensorboard, --wandb or --mlflow logs/, and
    train.log if the run was disturbed from outside. `.run.json` lists these names, see `own_files`,
    and `.lock` is the lock, see `folder_lock`.

    Args:
      path: the folder.
      writes: whether this process writes config.json and the logs; of several, only one does.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path: Path = Path(path)
        self.writes: bool = writes
        self.config: Path = self.path / CONFIG
        self.records: StepLog = StepLog(self.path / "metrics.jsonl", _is_record, writes=writes)
        self.events: StepLog = StepLog(self.records.path, _is_event, writes=writes)
        self.picture: Path = self.path / "loss.png"
        self.gradients: StepLog = StepLog(self.path / "gradients.jsonl", writes=writes)
        self.gradient_picture: Path = self.path / "gradients.png"
        self.sample: Path = self.path / "sample.txt"
        self.log: Path = self.path / LOG
        self.checkpoints: Path = self.path / CHECKPOINTS
        self.logs: Path = self.path / LOGS

    @classmethod
    def new(cls) -> "RunFolder":
        """Create a folder runs/TIME in the working directory, or runs/TIME-2 and so on."""
        return cls(make_new_folder(RUNS, lambda path: cls(path).check_path()))

    @classmethod
    def newest(cls) -> "RunFolder":
        """Return the newest run in runs/; raise OptionError if there is none."""
        runs = sorted(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise OptionError(
                f"there is no run in {RUNS}/: pass the folder of a run with --run DIR"
            )
        return cls(runs[-1].parent)

    def files(self) -> list[Path]:
        """Return the existing files and folders of the run."""
        return existing_files(self.path)

    def cut_records(self, step: int, events: Sequence[Record]) -> list[Record]:
        """Remove the records after a step, and all events except these; return the records."""
        records = self.records.read(step)
        self.records.write(sorted([*records, *events], key=lambda row: row["step"]))
        if self.gradients.path.exists():
            self.gradients.write(self.gradients.read(step))
        return records

    def check_path(self) -> None:
        """Raise OptionError if checkpoints cannot be written at this path."""
        path = str(self.path.absolute())
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
            raise OptionError(
                f"{path!r} has a character that is not valid UTF-8 or not printable: choose "
                "another folder with --run DIR"
            )

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raise OptionError if the folder contains a run, or cannot contain one.

        With `overwrite` it may contain a run.
        """
        self.check_path()
        if self.files() and not overwrite:
            raise OptionError(
                f"{self.path} already contains a run: resume it with --resume, replace it with "
                "--overwrite, or choose another folder with --run DIR"
            )
        self._check_own()

    def create(self, *, overwrite: bool) -> list[str]:
        """Create the folder for a new run; the process must hold it.

        Args:
          overwrite: remove the run in it, and no file that the run did not write.

        Returns:
          With `overwrite`, the other files, which are left.
        """
        self.check_free(overwrite=overwrite)
        left = remove_run(self.path) if self.files() else []
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        write_manifest(self.path)
        return left

    def reopen(self) -> None:
        """Prepare the folder for the rest of its run; the process must hold it.

        Raises:
          OptionError: a symbolic link is in the place of a file of the run.
        """
        self._check_own()
        remove_leftovers(self.path)
        write_manifest(self.path)  # a run of an older version has none

    def remove_if_empty(self) -> None:
        """Remove the folder if no run has begun in it, and runs/, if they are empty."""
        own = {MANIFEST, LOCK_FILE}
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= own:
            for name in own:
                (self.path / name).unlink(missing_ok=True)
        remove_if_empty(self.path, RUNS)

    def _check_own(self) -> None:
        """Raise OptionError if the run would write to a file that no run wrote."""
        if foreign := foreign_files(self.path):
            raise OptionError(
                f"{self.path} has files that no run wrote, under names of a run's files: "
                f"{join_names(foreign)}; move them, or choose another folder with --run DIR"
            )

    def remove_unsaved(self) -> bool:
        """Remove a run without a checkpoint to resume from; return whether it had none.

        The process must hold the folder.
        """
        if any(self.checkpoints.glob("*.sha256")):
            return False
        if self.path.is_dir():  # a signal may have removed it before
            remove_run(self.path)
        self.remove_if_empty()
        return True

    def write_log(self, message: str) -> None:
        """Append a line with the time to train.log, unless the folder cannot be written."""
        time = datetime.now().isoformat(" ", timespec="seconds")
        with suppress(OSError), open(self.log, "ab", opener=open_no_link) as file:
            file.write(f"{time} {message}\n".encode())

    def write_config(
        self, config: TrainConfig, facts: dict[str, Any], *, new: bool = False
    ) -> None:
        """Write config.json: the configuration, facts about the run, and a digest of both.

        Args:
          config: the options of the run.
          facts: text, baselines, device and parts.
          new: raise OptionError if another process has started a run here in the meantime.
        """
        if not self.writes:
            return
        if new:
            try:
                self.config.touch(exist_ok=False)
            except FileExistsError:
                self.check_free()
        values = asdict(config) | {"text": str(config.text) if config.text else None}
        content = {"config": values, **facts}
        text = json.dumps(content | {"sha256": _digest(content)}, indent=2)
        write_atomically(self.config, text + "\n")

    def read_config(self) -> tuple[TrainConfig, dict[str, Any]]:
        """Return the configuration and the facts; raise OptionError if they are damaged.

        An option that is newer than the run gets its default, which is how the run was trained. Two
        options have other values in older runs: `devices` is 1, and `validation` is a tenth of the
        text without an upper limit.
        """
        if not self.config.exists():
            raise OptionError(f"{self.path} contains no run: there is no {self.config.name}")
        try:
            facts = json.loads(self.config.read_text(encoding="utf-8"))
            if facts.pop("sha256") != _digest(facts):
                raise ValueError("its SHA-256 does not match")
            values = facts.pop("config")
            known = {field.name for field in fields(TrainConfig)}
            if unknown := sorted(set(values) - known):
                raise ValueError(f"this version does not know the options {unknown}")
            text = Path(values["text"]) if values["text"] else None
            settings = tuple(values.get("set", ()))  # JSON has no tuples
            older = {"devices": 1, "validation": _older_validation(facts)}
            return TrainConfig(**(older | values | {"text": text, "set": settings})), facts
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OptionError(
                f"{self.config} is damaged ({error}): restore it, or train again with --overwrite"
            ) from None


def known_characters(facts: dict[str, Any]) -> str | None:
    """Return the characters that a prompt may have; None if it may have any."""
    text = facts["text"]
    return text["vocabulary"] if text.get("kind", "characters") == "characters" else None


def _is_record(row: dict[str, Any]) -> bool:
    """Return whether a row of metrics.jsonl has the numbers that every record has."""
    numbers = row.get("seconds"), row.get("val_loss", "missing") or 0.0  # val_loss may be null
    return all(isinstance(number, int | float) for number in numbers)


def _is_event(row: Record) -> bool:
    """Return whether a row of metrics.jsonl is a rewind or a stop."""
    return isinstance(row.get("event"), str)


def _older_validation(facts: dict[str, Any]) -> int | None:
    """Return the number of validation characters of a run that does not record it."""
    tenth = round(facts.get("text", {}).get("characters", 0) * 0.1)
    return tenth if tenth > MAX_VALIDATION else None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
