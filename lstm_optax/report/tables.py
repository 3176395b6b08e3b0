"""The tables of a report: Markdown for a file, and a table of the page that sorts."""

import re
from collections.abc import Sequence

from lstm_optax.report.elements import Cell, escape, sortable_table
from lstm_optax.studies.comparison_tables import (
    VOID_NOTE,
    comparison_table,
    full_comparison_grid,
)
from lstm_optax.studies.study_grid import NONE, StudyGrid
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.sweep_tables import sweep_grid, sweep_table

MOST_CHARACTERS = 700  # of notes that are not folded
_NUMBER = re.compile(r"[≥≤<> ]*([-+]?\d+\.?\d*(e[-+]?\d+)?)")


def markdown_tables(study: StudyRecords) -> str:
    """Return the comparison, or else the table of each optimizer's settings, in Markdown."""
    if study.study["kind"] == "compare":
        return comparison_table(study)
    return "\n".join(f"## {name}\n\n{sweep_table(study, name)}" for name in study.optimizers)


def result_tables(study: StudyRecords) -> str:
    """Return the tables of the result as HTML, each with its notes."""
    if study.study["kind"] == "compare":
        return _table("Comparison", full_comparison_grid(study), "comparison")
    return setting_tables(study)


def setting_tables(study: StudyRecords) -> str:
    """Return a table of the tried settings of each optimizer as HTML."""
    return "\n".join(
        _table(f"Settings of {name}", sweep_grid(study, name), f"settings-{number}")
        for number, name in enumerate(study.optimizers)
    )


def _table(caption: str, grid: StudyGrid, name: str) -> str:
    rows = [[Cell(text, sort_value(text)) for text in row] for row in grid.rows]
    shown = [note for note in grid.notes if not note.startswith(VOID_NOTE)]  # in a box
    return sortable_table(caption, grid.header, rows, name) + _notes(shown)


def _notes(notes: Sequence[str]) -> str:
    """Return the notes of a table, folded if they are long."""
    is_open = " open" if sum(map(len, notes)) <= MOST_CHARACTERS else ""
    body = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<details class="notes"{is_open}><summary>Notes</summary>{body}</details>'


def sort_value(text: str) -> float | str | None:
    """Return the number with which a cell begins, else its text; None for a cell without either."""
    if text in ("", NONE):
        return None
    match = _NUMBER.match(text)
    return float(match[1]) if match else text
