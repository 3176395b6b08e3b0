"""The folder of a run: paths, configuration and logs; imports no JAX."""

import hashlib
import json
import shutil
import unicodedata
from dataclasses import asdict, fields
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from lstm_optax.records import write_atomically
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.options import MAX_VALIDATION, TrainConfig
from lstm_optax.runs.step_log import StepLog

RUNS = Path("runs")


class RunFolder:
    """The files of a run.

    These are config.json, metrics.jsonl, loss.png, sample.txt and checkpoints/; with --diagnose
    also gradients.jsonl and gradients.png.
    """

    def __init__(self, path: Path):
        self.path: Path = Path(path)
        self.config: Path = self.path / "config.json"
        self.records: StepLog = StepLog(self.path / "metrics.jsonl", _is_record)
        self.picture: Path = self.path / "loss.png"
        self.gradients: StepLog = StepLog(self.path / "gradients.jsonl")
        self.gradient_picture: Path = self.path / "gradients.png"
        self.sample: Path = self.path / "sample.txt"
        self.checkpoints: Path = self.path / "checkpoints"

    @classmethod
    def new(cls) -> "RunFolder":
        """Create a folder runs/TIME in the working directory, or runs/TIME-2 and so on.

        Runs that start in the same second get different folders.
        """
        time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for number in count(1):
            run = cls(RUNS / (time if number == 1 else f"{time}-{number}"))
            run.check_path()
            try:
                run.path.mkdir(parents=True)
            except FileExistsError:
                if not RUNS.is_dir():
                    raise
            else:
                return run
        raise AssertionError("unreachable: count has no end")

    @classmethod
    def newest(cls) -> "RunFolder":
        """Return the newest run in runs/; raise OptionError if there is none."""
        runs = sorted(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise OptionError(
                f"there is no run in {RUNS}/: pass the folder of a run with --run DIR"
            )
        return cls(runs[-1].parent)

    def holds_run(self) -> bool:
        """Return whether a run was started in the folder."""
        return any(path.exists() for path in (self.config, self.records.path, self.checkpoints))

    def files(self) -> list[Path]:
        """Return the existing files and folders of the run."""
        gradients = (self.gradients.path, self.gradient_picture)
        results = (self.records.path, self.picture, *gradients, self.sample)
        return [path for path in (*results, self.config, self.checkpoints) if path.exists()]

    def check_path(self) -> None:
        """Raise OptionError if checkpoints cannot be written at this path."""
        path = str(self.path.absolute())
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
            raise OptionError(
                f"{path!r} has a character that is not valid UTF-8 or not printable: choose "
                "another folder with --run DIR"
            )

    def check_free(self) -> None:
        """Raise OptionError if the folder contains a run, or cannot contain one."""
        self.check_path()
        if self.holds_run():
            raise OptionError(
                f"{self.path} already contains a run: resume it with --resume, replace it with "
                "--overwrite, or choose another folder with --run DIR"
            )

    def create(self, *, overwrite: bool) -> None:
        """Create the folder; with `overwrite`, delete the files of the run in it, and no others."""
        self.check_path()
        if not overwrite:
            self.check_free()
        if self.holds_run():
            for path in self.files():
                if path.is_file():
                    path.unlink()
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def remove_if_empty(self) -> None:
        """Remove the folder, and runs/, if they are empty."""
        for folder in (self.path, RUNS):
            try:
                folder.rmdir()
            except OSError:  # not empty
                return

    def write_config(
        self, config: TrainConfig, facts: dict[str, Any], *, new: bool = False
    ) -> None:
        """Write config.json: the configuration, facts about the run, and a digest of both.

        Args:
          config: the options of the run.
          facts: text, baselines, device and versions.
          new: raise OptionError if another process has started a run here in the meantime.
        """
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


def _older_validation(facts: dict[str, Any]) -> int | None:
    """Return the number of validation characters of a run that does not record it."""
    tenth = round(facts.get("text", {}).get("characters", 0) * 0.1)
    return tenth if tenth > MAX_VALIDATION else None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
