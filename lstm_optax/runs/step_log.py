"""JSON-lines files of a run: one record for each logged training step; imports no JAX."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from lstm_optax.records import Record, append_record, read_records, record_line, write_atomically


class StepLog:
    """A JSON-lines file with one row for each logged training step.

    Lines that are not rows, such as the torn last line after a crash, are skipped when the file is
    read.

    Args:
      path: the file, which need not exist.
      is_row: returns whether an object with a step is a row of this file.
      writes: whether this process writes the file; if not, `append` and `write` do nothing.
    """

    def __init__(
        self,
        path: Path,
        is_row: Callable[[Record], bool] = lambda row: True,
        *,
        writes: bool = True,
    ):
        self.path: Path = path
        self.writes: bool = writes
        self.is_row: Callable[[Record], bool] = is_row

    def append(self, row: Record) -> None:
        """Write a row at the end of the file."""
        if self.writes:
            append_record(self.path, row)

    def read(self, last_step: float = math.inf) -> list[Record]:
        """Return the rows up to a step."""
        if not self.path.exists():
            return []
        rows = [row for row in read_records(self.path) if row and _has_step(row)]
        return [row for row in rows if row["step"] <= last_step and self.is_row(row)]

    def write(self, rows: Sequence[Record]) -> None:
        """Replace the file's content by these rows."""
        if self.writes:
            write_atomically(self.path, "".join(map(record_line, rows)))


def _has_step(row: Record) -> bool:
    return isinstance(row.get("step"), int | float)
