"""Compare the learned rule with Nadam on held-out tasks, and print the gate's verdict.

    PYTHONPATH=tests/studies python -m learned.evaluate [--minutes 20] [--only COLUMN …]

Nadam is tuned for each cell, a task in a column: 8 rates, constant or with a cosine, on 2 tuning
seeds. Then all contenders run with 5 fresh seeds. Each part of a cell is a record; another run
computes only those that are missing, in the order of the columns, until the time is over.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from learned import gate
from learned.held_out import HIDDEN, TASKS, WIDE, WIDER
from learned.vectorised_runs import (
    LEARNED,
    LIBRARY,
    RATES,
    SETTINGS,
    Nadam,
    learned_rule,
    nadam_rule,
    train_all,
)
from learned.weights import load_theta, theta_hash
from lstm_optax import records

ROOT = Path(__file__).parents[3]
RECORDS = ROOT / "docs/records/learned/held_out.jsonl"
WEIGHTS = Path(__file__).with_name("weights.npz")

STEPS = 300
TUNING_SEEDS, SEEDS = (101, 102), (1, 2, 3, 4, 5)
NAMES = gate.GUARDED, "learned, unguarded", "learned, no horizon"

Cell = tuple[str, str]
"""Column and task."""


def cells(columns: tuple[str, ...] = gate.COLUMNS) -> list[Cell]:
    """Return the cells of the columns, in the order in which they run."""
    tasks = {"base": tuple(TASKS), "longer": tuple(TASKS), "wider": WIDER}
    return [(column, task) for column in columns for task in tasks[column]]


def sizes(column: str) -> tuple[int, int]:
    """Return the units and the steps of a column."""
    steps = STEPS * (gate.LONGER if column == "longer" else 1)
    return (WIDE if column == "wider" else HIDDEN), steps


def tune(cell: Cell) -> dict[str, Any]:
    """Return the record of the final losses [settings, tuning seeds] of Nadam in a cell."""
    begun = time.monotonic()
    hidden, steps = sizes(cell[0])
    task = TASKS[cell[1]]()
    losses = train_all(task, hidden, nadam_rule(steps), SETTINGS, TUNING_SEEDS, steps)
    return {
        "part": "tuning",
        "column": cell[0],
        "task": cell[1],
        "settings": [setting._asdict() for setting in SETTINGS],
        "final": final(losses).tolist(),
        "steps": steps,
        "seconds": round(time.monotonic() - begun, 1),
    }


def report(cell: Cell, tuned: Nadam, shared: Nadam, theta: Any) -> dict[str, Any]:
    """Return the record of the final losses of all contenders in a cell, on fresh seeds."""
    begun = time.monotonic()
    hidden, steps = sizes(cell[0])
    task = TASKS[cell[1]]()
    plain = train_all(task, hidden, nadam_rule(steps), (tuned, shared, LIBRARY), SEEDS, steps)
    ours = train_all(task, hidden, learned_rule(theta, steps), LEARNED, SEEDS, steps)
    names = "tuned", "shared", "default", *NAMES
    losses = np.concatenate([plain, ours])
    return {
        "part": "report",
        "column": cell[0],
        "task": cell[1],
        "weights": theta_hash(theta),
        "tuned": tuned._asdict() | {"edge": tuned.rate in (RATES[0], RATES[-1])},
        "shared": shared._asdict(),
        "final": dict(zip(names, final(losses).tolist(), strict=True)),
        "first": float(np.mean(losses[0, :, 0])),
        "steps": steps,
        "seconds": round(time.monotonic() - begun, 1),
    }


def final(losses: np.ndarray) -> np.ndarray:
    """Return the mean loss over the last tenth of the steps, the last axis."""
    return np.mean(losses[..., -(losses.shape[-1] // 10) :], axis=-1)


def best_setting(tuning: dict[str, Any]) -> Nadam:
    """Return the setting with the lowest mean final loss in a cell."""
    return SETTINGS[int(np.argmin(_means(tuning)))]


def best_shared(tunings: list[Any]) -> Nadam:
    """Return the setting with the lowest geometric mean ratio to the best one of each task."""
    logs = np.log([_means(tuning) for tuning in tunings])  # [tasks, settings]
    return SETTINGS[int(np.argmin(np.mean(logs - logs.min(axis=1, keepdims=True), axis=0)))]


def _means(tuning: dict[str, Any]) -> np.ndarray:
    losses = [[math.inf if x is None else x for x in row] for row in tuning["final"]]
    return np.mean(losses, axis=1)


def find(path: Path, **facts: Any) -> list[dict[str, Any]]:
    """Return the records of a file that have these facts."""
    found = records.read_records(path) if path.exists() else []
    return [r for r in found if r and all(r.get(name) == x for name, x in facts.items())]


def run_missing(path: Path, todo: list[Cell], weights: Path, seconds: float) -> None:
    """Run and record the parts of the cells that the file lacks, until the time is over."""
    begun, made_by = time.monotonic(), records.provenance("python -m learned.evaluate")
    theta, _ = load_theta(weights)

    def found_or_run(make: Callable[[], dict[str, Any]], **facts: Any) -> dict[str, Any] | None:
        found = find(path, **facts)
        if not found and time.monotonic() - begun < seconds:
            found = [make()]
            records.append_record(path, found[0] | made_by)
            print(*facts.values(), found[0]["seconds"], flush=True)
        return found[0] if found else None

    def tuning(cell: Cell) -> dict[str, Any] | None:
        return found_or_run(lambda: tune(cell), part="tuning", column=cell[0], task=cell[1])

    base = [tuning(cell) for cell in cells(("base",))]
    if None in base:
        return
    shared = best_shared(base)
    for cell in todo:
        if tuned := tuning(cell):
            found_or_run(
                partial(report, cell, best_setting(tuned), shared, theta),
                part="report",
                column=cell[0],
                task=cell[1],
                weights=theta_hash(theta),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", nargs="+", choices=gate.COLUMNS, default=gate.COLUMNS)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--records", type=Path, default=RECORDS)
    options = parser.parse_args()
    todo = cells(tuple(options.only))
    run_missing(options.records, todo, options.weights, 60 * options.minutes)
    weights = theta_hash(load_theta(options.weights)[0])
    reported = find(options.records, part="report", weights=weights)
    print(gate.task_table(reported), "", gate.verdict(gate.judge(reported)), sep="\n")


if __name__ == "__main__":
    main()
