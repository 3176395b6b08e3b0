"""Reading the numeric columns of a CSV file, a data frame or a dictionary."""

from __future__ import annotations

import csv as csv_module
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.checks import format_value
from lstm_optax.data.text_file import read_text

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null", "none", "nat", "?"})  # in lower case
DELIMITERS = ",;\t|"
MOST_LISTED = 20  # names in an error message


@dataclass(frozen=True)
class _Table:
    """Columns before they are read as numbers.

    Attributes:
      source: the name of the file, or "frame".
      names: the names of all columns, in their order.
      cells: name → cells of one column.
      lines: the number of the line of each row, if the table is a file.
    """

    source: str
    names: list[Any]
    cells: Mapping[Any, Any]
    lines: Sequence[int] | None = None

    def place(self, row: int) -> str:
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


def read_columns(
    names: Iterable[str],
    *,
    csv: str | PathLike[str] | None = None,
    frame: Any = None,
    encoding: str = "utf-8",
) -> dict[str, NDArray[np.float64]]:
    """Return numeric columns by name, with NaN for a missing value.

    The first line of a CSV file holds the names of the columns. Fields are separated by commas,
    semicolons, tabs or vertical bars, whichever divides the first line most. A value is missing if
    its cell is empty or "NA", "N/A", "NaN", "null", "none" or "?".

    Args:
      names: the columns to read; all others may hold text.
      csv: a file. Either this or `frame`.
      frame: a pandas or polars data frame, or a dictionary of columns.
      encoding: the text encoding of the file.

    Raises:
      TextError: the file cannot be read, see `read_text`.
      ValueError: no source or two; a column that is not there, is there twice, or holds text; no
        rows; rows or columns of different lengths.
    """
    if csv is not None and frame is not None:
        raise ValueError("csv and frame are both given: pass one of them")
    if csv is None and frame is None:
        raise ValueError("neither csv nor frame is given: pass a CSV file or a data frame")
    table = _read_frame(frame) if csv is None else _read_csv(csv, encoding)
    _check_names(table, names := list(dict.fromkeys(names)))
    columns = {name: _to_numbers(name, table) for name in names}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise ValueError(f"the columns of {table.source} have different lengths: {counts}")
    if names and not lengths[names[0]]:
        raise ValueError(f"{table.source} has no rows: it needs one row for each time step")
    return columns


def _read_csv(path: str | PathLike[str], encoding: str) -> _Table:
    if not isinstance(path, str | PathLike):
        raise ValueError(f"csv is {format_value(path)}, but must be the name of a file")
    text = read_text(path, encoding=encoding)
    head = next(line for line in text.split("\n") if line.strip())
    delimiter = max(DELIMITERS, key=lambda d: len(next(csv_module.reader([head], delimiter=d))))
    reader = csv_module.reader(io.StringIO(text.rstrip("\n")), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row or [""]])  # an empty line is an empty cell
            lines.append(reader.line_num)
    except csv_module.Error as error:
        raise ValueError(f"line {reader.line_num} of {path} is not CSV: {error}") from None
    first = next((i for i, row in enumerate(rows) if any(row)), 0)
    names, rows, lines = rows[first], rows[first + 1 :], lines[first + 1 :]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            found = f"{len(row)} field{'' if len(row) == 1 else 's'}"
            raise ValueError(
                f"line {line} of {path} has {found}, but its header has {len(names)} (separated by "
                f"{delimiter!r}): give every line one field for each column"
            )
    cells = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return _Table(str(path), names, cells, lines)


def _read_frame(frame: Any) -> _Table:
    columns = getattr(frame, "columns", None)
    if columns is None and isinstance(frame, Mapping):
        columns = frame.keys()
    if columns is None:
        raise ValueError(
            f"frame is {format_value(frame)}, but must be a data frame or a dictionary of columns"
        )
    return _Table("frame", list(columns), frame)


def _check_names(table: _Table, names: list[str]) -> None:
    """Raise ValueError for a name that is not in the table once."""
    counts = Counter(table.names)
    for name in names:
        if counts[name] > 1:
            raise ValueError(f"{table.source} has {counts[name]} columns {name!r}: rename them")
        if not counts[name]:
            near = get_close_matches(str(name), list(map(str, table.names)), n=1)
            listed = ", ".join(map(repr, table.names[:MOST_LISTED]))
            more = len(table.names) - MOST_LISTED
            raise ValueError(
                f"{table.source} has no column {name!r}; "
                f"{f'the nearest is {near[0]!r}; ' if near else ''}there are {listed}"
                f"{f' and {more} more' if more > 0 else ''}"
            )


def _to_numbers(name: str, table: _Table) -> NDArray[np.float64]:
    """Return one column as float64, with NaN for missing values."""
    column = table.cells[name]
    if isinstance(column, list):
        return _parse(name, column, table)
    if np.ma.isMaskedArray(column):
        return np.ma.asarray(column, np.float64).filled(np.nan)
    values = np.asarray(column)
    if values.ndim != 1:
        raise ValueError(f"column {name!r} of {table.source} has shape {values.shape}, not [rows]")
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind not in "OUT":  # objects and text
        raise ValueError(
            f"column {name!r} of {table.source} holds {values.dtype}, but must hold numbers"
        )
    return _parse(name, values, table)


def _parse(name: str, cells: Sequence[Any] | NDArray[Any], table: _Table) -> NDArray[np.float64]:
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        text = str(int(cell) if isinstance(cell, bool | np.bool_) else cell).strip()
        if text.lower() in MISSING:
            continue
        try:
            values[row] = float(text)
        except ValueError:
            decimal = text.count(",") == 1 and text.replace(",", "").lstrip("+-").isdigit()
            remedy = "write decimals with a point" if decimal else "leave missing values empty"
            raise ValueError(
                f"column {name!r} of {table.source} has {text!r} at {table.place(row)}, but must "
                f"hold numbers: {remedy}"
            ) from None
    return values
