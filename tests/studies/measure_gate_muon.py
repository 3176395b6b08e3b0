"""Measure a training step of optimizers of `study_gate_muon.py`, in the programs of its trials.

    taskset -c 0 python tests/studies/measure_gate_muon.py [CELL …] [--out FILE]

The optimizers of a cell take turns in one process. A turn is one dispatch of the steps between two
evaluations, without an evaluation. `--out docs/records/gate_muon_steps.jsonl` appends the seconds
of every turn; of several records of a cell the last one counts.
"""

import argparse
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from study_gate_muon import BASE, CELLS, RULES, cell_task, make_optimizer, time_ratio

from lstm_optax.records import Record, append_record, markdown_table, provenance
from lstm_optax.studies.trial_program import TrialProgram
from lstm_optax.training.batches import stack_batches

TIMED = (
    "gate_muon",
    "gate_muon, recurrent kernels only",
    "muon",
    "nadam",
    "adam",
    "rmsprop_momentum",
    "momentum_sgd",
)
ROUNDS = 7


class Turns:
    """The training of one optimizer, one dispatch at a time.

    Args:
      cell: task and size.
      name: of the optimizer; it has the smallest rate of its grid.
      rounds: number of dispatches.
    """

    def __init__(self, cell: str, name: str, rounds: int):
        task, (rule, rates) = cell_task(cell), RULES[name]
        self.steps: int = task.eval_every
        factory = partial(make_optimizer, rule, (rounds + 1) * self.steps)
        self._program = TrialProgram(task, factory, trials=1)
        self._hyper = [{"learning_rate": min(rates)}]
        batches = [task.batches(position, 0) for position in range(self.steps)]
        self._batches = [stack_batches(batches)]
        self.states: Any = self._program.start(None, self._hyper, [0], [True])
        self.taken: int = 0
        self.take()  # compiled, and warm

    def take(self) -> float:
        """Take the steps of one dispatch, and return the seconds of a step."""
        began = time.perf_counter()
        self.states, result = self._program.advance(
            self.states, self._hyper, self._batches, [self.steps], [False]
        )
        finite, taken = jax.device_get((result.finite, result.step))
        seconds = time.perf_counter() - began
        self.taken += self.steps
        if not finite.all() or taken[0] != self.taken:
            raise RuntimeError(f"the training diverged after {taken[0]} steps")
        return seconds / self.steps


def measure(cell: str, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the seconds of a step in each round, for each optimizer."""
    turns = {name: Turns(cell, name, rounds) for name in TIMED}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            seconds[name].append(turn.take())
    return seconds


def times_table(times: Mapping[str, Record]) -> str:
    """Return the table: median milliseconds of Nadam's step, and ratios of the others to it."""
    header = ["one step", *(cell.replace("_", ", ") for cell in times)]
    base = [np.median(found["seconds"][BASE]) for found in times.values()]
    rows = [[f"{BASE}, ms", *(f"{1e3 * seconds:.2f}" for seconds in base)]]
    for name in TIMED:
        if name != BASE:
            ratios = (time_ratio(found, name) for found in times.values())
            rows.append([f"{name}, ratio", *(f"{ratio:.2f}" for ratio in ratios)])
    return markdown_table(header, rows, align_right=True)


def spread(found: Record) -> float:
    """Return the largest ratio of the upper to the lower quartile of a cell's seconds."""
    quartiles = (np.quantile(turns, [0.25, 0.75]) for turns in found["seconds"].values())
    return max(high / low for low, high in quartiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"of {', '.join(CELLS)}")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    times = {}
    for cell in given.cells or CELLS:
        source = provenance(f"python tests/studies/measure_gate_muon.py {cell}")
        seconds = measure(cell, given.rounds)
        digits = {n: [float(f"{s:.4g}") for s in turns] for n, turns in seconds.items()}
        times[cell] = {"cell": cell, "seconds": digits, "made_by": source}
        print(f"{cell}: quartiles differ by up to {spread(times[cell]):.2f}", flush=True)
        if given.out is not None:
            append_record(given.out, times[cell])
    print(times_table(times))


if __name__ == "__main__":
    main()
