"""JSON-lines files of a run: one object for each logged training step; imports no JAX."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class StepLog:
    """A JSON-lines file with one row for each logged training step.

    JSON has no NaN and no infinity: they are written as null. Lines that are not rows, such as the
    torn last line after a crash, are skipped when the file is read.

    Args:
      path: the file, which need not exist.
      is_row: returns whether an object with a step is a row of this file.
    """

    def __init__(self, path: Path, is_row: Callable[[Row], bool] = lambda row: True):
        self.path: Path = path
        self.is_row: Callable[[Row], bool] = is_row

    def append(self, row: Row) -> None:
        """Write a row at the end of the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_to_line(row))

    def read(self, last_step: float = math.inf) -> list[Row]:
        """Return the rows up to a step."""
        if not self.path.exists():
            return []
        rows = map(_parse_row, self.path.read_bytes().splitlines())
        return [row for row in rows if row and row["step"] <= last_step and self.is_row(row)]

    def write(self, rows: Sequence[Row]) -> None:
        """Replace the file's content by these rows."""
        replace_file(self.path, "".join(map(_to_line, rows)))


def replace_file(path: Path, text: str) -> None:
    """Write a file completely or, on an error, leave it as it was."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _to_line(row: Row) -> str:
    return json.dumps({name: _finite_or_null(value) for name, value in row.items()}) + "\n"


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite_or_null(entry) for entry in value]
    return value if value is None or math.isfinite(value) else None


def _parse_row(line: bytes) -> Row | None:
    """Return the object in a line if it has a step, else None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int | float) else None
