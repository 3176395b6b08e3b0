"""The verdict on the learned rule from its records: the gate, as it was fixed before any result.

A final loss is the mean training loss over the last tenth of a run. A run has diverged if that is
not finite, or above the mean loss of the first step. The ratio of two contenders on a task is that
of their final losses, each a mean over the seeds.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_optax.records import markdown_table

COLUMNS = "base", "wider", "longer"
LONGER, WIDER = 4, 4  # times the steps, times the units
TASKS, SEEDS = 8, 5  # at least
LIMITS = {"tuned": 1.10, "shared": 1.00, "longer": 1.15, "wider": 1.15}
SHARED_ON = 6  # of 8 tasks

GUARDED = "learned, guarded"


class Criterion(NamedTuple):
    """A line of the gate."""

    text: str
    number: float
    limit: str
    met: bool


def ratio(cell: dict[str, Any], other: str, contender: str = GUARDED) -> float:
    """Return the ratio of the final losses of a contender and another one in a cell's record."""
    ours, theirs = (_mean(cell["final"][name]) for name in (contender, other))
    return ours / theirs if math.isfinite(ours) and theirs > 0 else math.inf


def diverged(cell: dict[str, Any], contender: str) -> int:
    """Return the number of diverged runs of a contender in a cell's record."""
    return sum(
        loss is None or not math.isfinite(loss) or loss > cell["first"]
        for loss in cell["final"][contender]
    )


def judge(cells: Sequence[dict[str, Any]], contender: str = GUARDED) -> list[Criterion]:
    """Return the criteria of the gate for the records of the reported cells."""
    by_column = {name: [c for c in cells if c["column"] == name] for name in COLUMNS}
    base = by_column["base"]
    wrong = sum(diverged(cell, contender) for cell in cells)
    runs = sum(len(cell["final"][contender]) for cell in cells)
    seeds = min((len(cell["final"][contender]) for cell in cells), default=0)
    against = {
        name: float(np.median([ratio(cell, "tuned", contender) for cell in found] or [math.inf]))
        for name, found in by_column.items()
    }
    wins = sum(ratio(cell, "shared", contender) <= LIMITS["shared"] for cell in base)
    needed = math.ceil(SHARED_ON / TASKS * max(len(base), TASKS))
    return [
        Criterion("held-out tasks", len(base), f"≥ {TASKS}", len(base) >= TASKS),
        Criterion("seeds of each", seeds, f"≥ {SEEDS}", seeds >= SEEDS),
        Criterion(f"diverged, of {runs} runs", wrong, "0", bool(cells) and wrong == 0),
        _at_most("median ratio to Nadam tuned per task", against["base"], LIMITS["tuned"]),
        Criterion(
            f"tasks of {len(base)} with a ratio to the best shared setting ≤ 1.00",
            wins,
            f"≥ {needed}",
            wins >= needed,
        ),
        *(
            _at_most(
                f"median ratio at {times} × the {unit}, {len(by_column[name])} tasks",
                against[name],
                LIMITS[name],
            )
            for name, times, unit in (("longer", LONGER, "steps"), ("wider", WIDER, "units"))
        ),
    ]


def verdict(criteria: Sequence[Criterion]) -> str:
    """Return the table of the criteria in Markdown, and the verdict below it."""
    rows = [[c.text, f"{c.number:.4g}", c.limit, "yes" if c.met else "no"] for c in criteria]
    table = markdown_table(["criterion", "measured", "limit", "met"], rows)
    met = all(c.met for c in criteria)
    return f"{table}\n\nThe gate is {'met' if met else 'not met'}."


def task_table(cells: Sequence[dict[str, Any]]) -> str:
    """Return the final losses of each cell, and the ratios to the tuned and the shared Nadam."""
    header = ["task", "column", "tuned", "its setting", "shared", "default", "guarded"]
    header += ["unguarded", "no horizon", "guarded / tuned", "guarded / shared"]
    names = ("tuned", "shared", "default", GUARDED, "learned, unguarded")
    rows = []
    for cell in cells:
        means = [f"{_mean(cell['final'][name]):.4g}" for name in (*names, "learned, no horizon")]
        setting = f"{cell['tuned']['rate']:g}{' cosine' if cell['tuned']['cosine'] else ''}"
        setting += " (edge)" if cell["tuned"]["edge"] else ""
        ratios = [f"{ratio(cell, other):.2f}" for other in ("tuned", "shared")]
        rows.append([cell["task"], cell["column"], means[0], setting, *means[1:], *ratios])
    return markdown_table(header, rows)


def _at_most(text: str, number: float, limit: float) -> Criterion:
    return Criterion(text, number, f"≤ {limit:.2f}", number <= limit)


def _mean(losses: Sequence[float | None]) -> float:
    """Return the mean; infinite if a loss is not finite, which JSON stores as null."""
    return float(np.mean([math.inf if x is None else x for x in losses]))
