"""Print per-gate Muon against each rival, for the cells of `study_gate_muon.py` with records.

python tests/studies/gate_muon_table.py
"""

import math
from pathlib import Path

from study_gate_muon import CELLS, RULES

from lstm_optax.studies import paired_tests, read_study, summarize
from lstm_optax.studies.statistics import SIGNIFICANCE, PairedTest, holm

RECORDS = Path(__file__).parents[2] / "docs/records"
OURS = "gate_muon"


def cell_tests(cell: str) -> dict[str, PairedTest]:
    """Return the paired test of the logarithms of each rival's losses minus those of ours."""
    rows = summarize(read_study(RECORDS / f"gate_muon_{cell}"))
    losses = {row.optimizer: row.at_equal_steps.values for row in rows}
    return {
        rival: paired_tests({rival: losses[rival], OURS: losses[OURS]}, relative=True)[0]
        for rival in RULES
        if rival != OURS
    }


def pairs_table() -> str:
    """Return the table: loss of the rival divided by ours, * if that is beyond seed noise.

    The p-values are corrected for all entries of the table.
    """
    cells = [cell for cell in CELLS if (RECORDS / f"gate_muon_{cell}").exists()]
    tests = {cell: cell_tests(cell) for cell in cells}
    keys = [(rival, cell) for rival in RULES if rival != OURS for cell in cells]
    corrected = dict(zip(keys, holm([tests[cell][rival].p for rival, cell in keys]), strict=True))
    head = " | ".join(cell.replace("_", ", ") for cell in cells)
    lines = [f"| loss divided by that of {OURS} | {head} |", "| --- |" + " ---: |" * len(cells)]
    for rival in dict.fromkeys(rival for rival, _ in keys):
        entries = []
        for cell in cells:
            mark = " *" if corrected[rival, cell] < SIGNIFICANCE else ""
            entries.append(f"{math.exp(tests[cell][rival].difference):.2f}{mark}")
        lines.append(f"| {rival} | {' | '.join(entries)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(pairs_table())
