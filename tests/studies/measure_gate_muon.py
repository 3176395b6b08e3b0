"""Measure a training step of optimizers of `study_gate_muon.py`, in the programs of its trials.

    taskset -c 0 python tests/studies/measure_gate_muon.py [CELL …] [--rounds N] [--out FILE]

The optimizers of a cell take turns in one process. A turn is one dispatch of the steps between two
evaluations, without an evaluation. The seconds are those of the processor, which other programs
disturb less than those of the wall; on one idle core both are equal. `--out
docs/records/gate_muon_steps.jsonl` appends both for every turn; of several records of a cell the
last one counts.
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
ROUNDS = 9


class Turns:
    """The training of one optimizer, one dispatch at a time.

    Args:
      cell: task and size.
      name: of the optimizer; it has the smallest rate of its grid, and 0 after the end of a trial.
    """

    def __init__(self, cell: str, name: str):
        task, (rule, rates) = cell_task(cell), RULES[name]
        self.steps: int = task.eval_every
        factory = partial(make_optimizer, rule, task.steps)
        self._program = TrialProgram(task, factory, trials=1)
        self._hyper = [{"learning_rate": min(rates)}]
        batches = [task.batches(position, 0) for position in range(self.steps)]
        self._batches = [stack_batches(batches)]
        self.states: Any = self._program.start(None, self._hyper, [0], [True])
        self.taken: int = 0
        self.take()  # compiled, and warm

    def take(self) -> np.ndarray:
        """Take the steps of one dispatch; return seconds of a step by processor and by the wall."""
        began = clocks()
        self.states, result = self._program.advance(
            self.states, self._hyper, self._batches, [self.steps], [False]
        )
        finite, taken = jax.device_get((result.finite, result.step))
        seconds = clocks() - began
        self.taken += self.steps
        if not finite.all() or taken[0] != self.taken:
            raise RuntimeError(f"the training diverged after {taken[0]} steps")
        return seconds / self.steps


def clocks() -> np.ndarray:
    return np.array([time.process_time(), time.perf_counter()])


def measure(cell: str, rounds: int = ROUNDS) -> Record:
    """Return the seconds of a step in each round, for each optimizer."""
    turns = {name: Turns(cell, name) for name in TIMED}
    found: dict[str, list[np.ndarray]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(turn.take())
    columns = {name: np.transpose(taken) for name, taken in found.items()}
    return {
        clock: {n: [float(f"{s:.4g}") for s in rows[place]] for n, rows in columns.items()}
        for place, clock in enumerate(("seconds", "wall_seconds"))
    }


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


def disturbance(found: Record) -> float:
    """Return the seconds of the wall divided by those of the processor, of all turns."""
    wall, processor = (
        sum(map(sum, found[clock].values())) for clock in ("wall_seconds", "seconds")
    )
    return wall / processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=f"of {', '.join(CELLS)}")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    times = {}
    for cell in given.cells or CELLS:
        command = f"python tests/studies/measure_gate_muon.py {cell} --rounds {given.rounds}"
        source = provenance(command)
        times[cell] = {"cell": cell, "made_by": source} | measure(cell, given.rounds)
        shown = f"{disturbance(times[cell]):.2f}"
        print(f"{cell}: the wall's seconds are {shown} of the processor's", flush=True)
        if given.out is not None:
            append_record(given.out, times[cell])
    print(times_table(times))


if __name__ == "__main__":
    main()
