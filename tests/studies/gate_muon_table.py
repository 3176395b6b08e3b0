"""Print the tables of docs/gate_muon.md: equal steps, a finer grid, times, equal seconds.

python tests/studies/gate_muon_table.py
"""

import math
from collections.abc import Sequence
from pathlib import Path

from measure_gate_muon import times_table
from study_gate_muon import CELLS, FINE, IN_FINE, IN_SECONDS, OURS, RULES, SECONDS, read_times

from lstm_optax.records import markdown_table
from lstm_optax.studies import StudyRecords, paired_tests, read_study, summarize
from lstm_optax.studies.statistics import SIGNIFICANCE, PairedTest, holm

RECORDS = Path(__file__).parents[2] / "docs/records"
RIVALS = tuple(name for name in RULES if name != OURS)


def read_cell(cell: str) -> StudyRecords:
    return read_study(RECORDS / f"gate_muon_{cell}")


def last_losses(cell: str) -> dict[str, tuple[float, ...]]:
    """Return the test losses of the seeds at the end, for each optimizer."""
    rows = summarize(read_cell(cell))
    return {row.optimizer: row.at_equal_steps.values for row in rows if row.at_equal_steps}


def cells_with_records(end: str = "") -> list[str]:
    return [cell for cell in CELLS if (RECORDS / f"gate_muon_{cell}{end}").exists()]


def cell_tests(cell: str, rivals: Sequence[str] = RIVALS, end: str = "") -> dict[str, PairedTest]:
    """Return the paired test of the logarithms of each rival's losses minus those of ours.

    `end` is that of the rivals' cell; ours are from the same cell, or else from that without it.
    """
    theirs = last_losses(cell + end)
    ours = theirs.get(OURS) or last_losses(cell)[OURS]
    return {
        rival: paired_tests({rival: theirs[rival], OURS: ours}, relative=True)[0]
        for rival in rivals
    }


def ratio_rows(cells: Sequence[str], rivals: Sequence[str], end: str = "") -> list[list[str]]:
    """Return rows of the loss of the rival divided by ours, * if that is beyond seed noise.

    The p-values are corrected for all entries.
    """
    tests = {cell: cell_tests(cell, rivals, end) for cell in cells}
    keys = [(rival, cell) for rival in rivals for cell in cells]
    corrected = dict(zip(keys, holm([tests[cell][rival].p for rival, cell in keys]), strict=True))

    def entry(rival: str, cell: str) -> str:
        mark = " *" if corrected[rival, cell] < SIGNIFICANCE else ""
        return f"{math.exp(tests[cell][rival].difference):.2f}{mark}"

    return [[rival, *(entry(rival, cell) for cell in cells)] for rival in rivals]


def with_header(cells: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = [f"loss divided by that of {OURS}", *(cell.replace("_", ", ") for cell in cells)]
    return markdown_table(header, rows, align_right=True)


def pairs_table() -> str:
    """Return the table at equal steps."""
    cells = cells_with_records()
    return with_header(cells, ratio_rows(cells, RIVALS))


def seconds_table() -> str:
    """Return the table in which the rivals have more steps, in the seconds of ours."""
    cells = cells_with_records(SECONDS)
    lengths = [
        [f"steps of {who}", *(str(read_cell(cell + end).study["task"]["steps"]) for cell in cells)]
        for who, end in ((OURS, ""), ("the others", SECONDS))
    ]
    return with_header(cells, [*ratio_rows(cells, IN_SECONDS, SECONDS), *lengths])


def fine_table() -> str:
    """Return the table of the cells with a finer grid, with the chosen rates."""
    cells = cells_with_records(FINE)
    rows = ratio_rows(cells, IN_FINE[1:], FINE)
    for name in IN_FINE:
        choices = (read_cell(cell + FINE).choices[name]["hyper"] for cell in cells)
        rows.append([f"rate of {name}", *(f"{hyper['learning_rate']:g}" for hyper in choices)])
    return with_header(cells, rows)


if __name__ == "__main__":
    print(pairs_table(), fine_table(), times_table(read_times()), seconds_table(), sep="\n\n")
