"""The folder of a run: its configuration, its records, its checkpoints; no JAX here."""

import json
import math
import os
import shutil
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from lstm_optax.experiments.options import OptionError, TrainConfig

RUNS = Path("runs")


class RunFolder:
    """Where a run lies: config.json, metrics.jsonl, loss.png, sample.txt and checkpoints/."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.picture = self.path / "loss.png"
        self.sample = self.path / "sample.txt"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def new(cls) -> "RunFolder":
        """Return runs/TIME in the working folder, not made yet."""
        return cls(RUNS / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))

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
        mine = (self.metrics, self.picture, self.sample, self.config, self.checkpoints)
        return [path for path in mine if path.exists()]

    def create(self, *, overwrite: bool) -> None:
        """Make the folder; with `overwrite`, take away the run it holds, and nothing else."""
        if self.holds_run():
            if not overwrite:
                raise OptionError(
                    f"{self.path} already holds a run: resume it with --resume, replace it with "
                    f"--overwrite, or name another folder with --run DIR"
                )
            for file in (self.config, self.metrics, self.picture, self.sample):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: TrainConfig, facts: dict[str, Any]) -> None:
        """Write config.json: the configuration, and facts of the text and the versions."""
        values = asdict(config) | {"text": str(config.text) if config.text else None}
        text = json.dumps({"config": values, **facts}, indent=2, ensure_ascii=False)
        _write_whole(self.config, text + "\n")

    def read_config(self) -> tuple[TrainConfig, dict[str, Any]]:
        """Return the configuration and the facts; OptionError if they cannot be read."""
        if not self.config.exists():
            raise OptionError(f"{self.path} holds no run: there is no {self.config.name}")
        try:
            facts = json.loads(self.config.read_text(encoding="utf-8"))
            values = facts.pop("config")
            known = {field.name for field in fields(TrainConfig)}
            if set(values) != known:
                raise ValueError(f"settings {sorted(set(values) ^ known)} do not fit this version")
            text = Path(values["text"]) if values["text"] else None
            return TrainConfig(**(values | {"text": text})), facts
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{self.config} is damaged ({error}): start another run") from None

    def append_record(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def read_records(self, last_step: int | None = None) -> list[dict[str, Any]]:
        """Return the records up to a step; a line broken off by a crash ends them."""
        records = []
        if not self.metrics.exists():
            return records
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                break
            if last_step is not None and record["step"] > last_step:
                break
            records.append(record)
        return records

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        _write_whole(self.metrics, "".join(map(_line, records)))


def _line(record: dict[str, Any]) -> str:
    """Return a record as a line of JSON, which has no word for NaN: null stands for it."""
    finite = {k: v if v is None or math.isfinite(v) else None for k, v in record.items()}
    return json.dumps(finite) + "\n"


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
