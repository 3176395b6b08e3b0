"""A table of a study as text, for the terminal and as Markdown, and how its numbers read."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from lstm_optax.records import markdown_table

NONE = "—"


class StudyGrid(NamedTuple):
    """A table of text.

    Attributes:
      header: names of the columns.
      rows: a list of cells for each row.
      notes: sentences below the table, with the differences and the ties.
    """

    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def grid_table(grid: StudyGrid) -> Table:
    """Return a grid as a table for the terminal, with its notes as the caption."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.caption, table.caption_justify = Text("\n".join(["", *grid.notes])), "left"
    for i, name in enumerate(grid.header):
        inner = 0 < i < len(grid.header) - 1
        justify = "right" if i else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=inner)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


def grid_markdown(grid: StudyGrid) -> str:
    """Return a grid in Markdown, with a paragraph for each note."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in grid.rows]
    return "\n\n".join([markdown_table(grid.header, rows, align_right=True), *grid.notes]) + "\n"


def format_number(value: float | None, digits: int = 4) -> str:
    """Return a number with some significant digits, and a dash for one that is unknown."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.{digits}g}"


def format_interval(mean: float, low: float, high: float) -> str:
    """Return a mean with its interval; the last digit is at most a fifth of the interval."""
    width = high - low
    if not math.isfinite(width):
        return f"{format_number(mean)} (no interval)"
    decimals = max(0, math.ceil(0.69 - math.log10(width))) if width > 0 else 4
    if decimals > 5 or abs(mean) >= 1e5:
        return f"{mean:.4g} ({low:.4g} to {high:.4g})"
    shown = [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in (mean, low, high)]
    return f"{shown[0]} ({shown[1]}{' to ' if low < 0 else '–'}{shown[2]})"


def format_hyper(hyper: Mapping[str, Any]) -> str:
    """Return hyper-parameters as `name=value` pairs, without the learning rate's name."""
    pairs = {name: format_value(value) for name, value in hyper.items()}
    return ", ".join(v if n == "learning_rate" else f"{n}={v}" for n, v in pairs.items())


def format_value(value: Any) -> str:
    """Return the value of a hyper-parameter as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
