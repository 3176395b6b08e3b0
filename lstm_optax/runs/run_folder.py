"""The folder of a run: its configuration, its records, its checkpoints; no JAX here."""

import hashlib
import json
import math
import os
import shutil
import unicodedata
from dataclasses import asdict, fields
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from lstm_optax.runs.options import MOST_VALIDATION, OptionError, TrainConfig

RUNS = Path("runs")


class RunFolder:
    """Where a run lies: config.json, metrics.jsonl, loss.png, sample.txt and checkpoints/.

    With --diagnose also gradients.jsonl and gradients.png.
    """

    def __init__(self, path: Path):
        self.path: Path = Path(path)
        self.config: Path = self.path / "config.json"
        self.metrics: Path = self.path / "metrics.jsonl"
        self.picture: Path = self.path / "loss.png"
        self.gradients: Path = self.path / "gradients.jsonl"
        self.gradient_picture: Path = self.path / "gradients.png"
        self.sample: Path = self.path / "sample.txt"
        self.checkpoints: Path = self.path / "checkpoints"

    @classmethod
    def new(cls) -> "RunFolder":
        """Make the folder runs/TIME in the working folder, or runs/TIME-2 and so on; return it.

        No other run gets the same, even if it begins in the same second.
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
        raise AssertionError("count ends never")

    def leave_if_empty(self) -> None:
        """Take the folder away, and runs/, if nothing was written into it."""
        for folder in (self.path, RUNS):
            try:
                folder.rmdir()
            except OSError:  # there is something in it
                return

    @classmethod
    def newest(cls) -> "RunFolder":
        """Return the newest run under runs/; OptionError if there is none."""
        runs = sorted(RUNS.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise OptionError(f"there is no run in {RUNS}/: name its folder with --run DIR")
        return cls(runs[-1].parent)

    def holds_run(self) -> bool:
        """Return whether a run was begun here."""
        return self.config.exists() or self.metrics.exists() or self.checkpoints.exists()

    def files(self) -> list[Path]:
        """Return the files and folders of the run that are there."""
        diagnosis = (self.gradients, self.gradient_picture)
        mine = (self.metrics, self.picture, *diagnosis, self.sample, self.config, self.checkpoints)
        return [path for path in mine if path.exists()]

    def check_free(self) -> None:
        """Raise OptionError if a run was begun here, or none can be."""
        self.check_path()
        if self.holds_run():
            raise OptionError(
                f"{self.path} already holds a run: resume it with --resume, replace it with "
                "--overwrite, or name another folder with --run DIR"
            )

    def create(self, *, overwrite: bool) -> None:
        """Make the folder; with `overwrite`, take away the run it holds, and nothing else."""
        self.check_path()
        if not overwrite:
            self.check_free()
        if self.holds_run():
            for path in self.files():
                if path.is_file():
                    path.unlink()
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def write_config(
        self, config: TrainConfig, facts: dict[str, Any], *, new: bool = False
    ) -> None:
        """Write config.json: the configuration, facts of the text and the versions, a digest.

        A new one is refused with OptionError where another process has just begun a run.
        """
        if new:
            try:
                self.config.touch(exist_ok=False)
            except FileExistsError:
                self.check_free()
        values = asdict(config) | {"text": str(config.text) if config.text else None}
        content = {"config": values, **facts}
        text = json.dumps(content | {"sha256": _digest(content)}, indent=2)
        _write_whole(self.config, text + "\n")

    def read_config(self) -> tuple[TrainConfig, dict[str, Any]]:
        """Return the configuration and the facts; OptionError if they are not as written.

        An option that is newer than the run has its default, which is what the run did; except
        that a run that does not say on how many devices it was had one, and that a tenth of a
        long text validated without a bound.
        """
        if not self.config.exists():
            raise OptionError(f"{self.path} holds no run: there is no {self.config.name}")
        try:
            facts = json.loads(self.config.read_text(encoding="utf-8"))
            if facts.pop("sha256") != _digest(facts):
                raise ValueError("its SHA-256 does not fit")
            values = facts.pop("config")
            known = {field.name for field in fields(TrainConfig)}
            if unknown := sorted(set(values) - known):
                raise ValueError(f"this version does not know its settings {unknown}")
            text = Path(values["text"]) if values["text"] else None
            older = {"devices": 1, "validation": _older_validation(facts)}
            return TrainConfig(**(older | values | {"text": text})), facts
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OptionError(
                f"{self.config} is damaged ({error}): put it back, or train anew with --overwrite"
            ) from None

    def check_resume(self, config: TrainConfig) -> None:
        """Raise OptionError if `config` is not what the run can go on with.

        The name and the encoding of the text may differ, since its content is compared, and the
        devices, which change no more than rounding; more steps are possible under a constant
        schedule.
        """
        self.check_path()
        stored, _ = self.read_config()
        free = ("text", "encoding", "devices")
        changed = {
            n: v for n, v in vars(stored).items() if v != getattr(config, n) and n not in free
        }
        if set(changed) == {"steps"}:
            if config.schedule != "constant":
                raise OptionError(
                    f"--resume with --steps {config.steps}: the run was planned for "
                    f"{stored.steps}, and its {config.schedule} schedule depends on them; only a "
                    "constant one can go on"
                )
        elif changed:
            flags = ", ".join(_flag(name, value) for name, value in changed.items())
            raise OptionError(
                f"--resume: the run in {self.path} has {flags}; leave such flags out to go on "
                "with it, or name another folder with --run DIR for another run"
            )

    def check_path(self) -> None:
        """Raise OptionError if no checkpoint can be written at this path."""
        path = str(self.path.absolute())
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
            raise OptionError(
                f"{path!r} has a character that is no UTF-8 or no printable one: name another "
                "folder with --run DIR"
            )

    def append_record(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def read_records(self, last_step: float = math.inf) -> list[dict[str, Any]]:
        """Return the records up to a step, without lines that hold none, as a crash leaves them."""
        if not self.metrics.exists():
            return []
        records = map(_record_of, self.metrics.read_bytes().splitlines())
        return [record for record in records if record and record["step"] <= last_step]

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        _write_whole(self.metrics, "".join(map(_line, records)))

    def append_gradients(self, row: dict[str, Any]) -> None:
        """Add a line to gradients.jsonl: "step", and arrays as lists."""
        with self.gradients.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def read_gradients(self, last_step: float = math.inf) -> list[dict[str, Any]]:
        """Return the lines of gradients.jsonl up to a step, without those that a crash broke."""
        if not self.gradients.exists():
            return []
        rows = map(_object_of, self.gradients.read_bytes().splitlines())
        return [row for row in rows if row and row["step"] <= last_step]

    def write_gradients(self, rows: list[dict[str, Any]]) -> None:
        """Write gradients.jsonl anew."""
        _write_whole(self.gradients, "".join(map(_line, rows)))


def _older_validation(facts: dict[str, Any]) -> int | None:
    """Return how much of the text validated, in a run that does not say so."""
    tenth = round(facts.get("text", {}).get("characters", 0) * 0.1)
    return tenth if tenth > MOST_VALIDATION else None


def _line(record: dict[str, Any]) -> str:
    """Return a record as a line of JSON, which has no word for NaN: null stands for it."""
    return json.dumps({name: _finite(value) for name, value in record.items()}) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value if value is None or math.isfinite(value) else None


def _record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record that a line holds, None if it holds none."""
    record = _object_of(line) or {}
    numbers = record.get("seconds"), record.get("val_loss", "none") or 0.0
    return record if all(isinstance(number, int | float) for number in numbers) else None


def _object_of(line: bytes) -> dict[str, Any] | None:
    """Return the object with a step that a line of JSON holds, None if it holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int | float) else None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flag(name: str, value: Any) -> str:
    """Return the flag that gives an option its value."""
    flag = name.replace("_", "-")
    if value is None or value is False:
        return f"no --{flag}"
    return f"--{flag}" if value is True else f"--{flag} {value}"


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
