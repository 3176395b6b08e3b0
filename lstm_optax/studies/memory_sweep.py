"""Which optimizers, from which initial biases, learn to remember: success over seeds."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Literal, get_args

import tyro

from lstm_optax.runs.options import OptionError
from lstm_optax.studies.memory_trainer import OPTIMIZERS, Lane, Program, Start, TaskName
from lstm_optax.studies.study import (
    Record,
    RecordFile,
    Tell,
    beyond,
    check_counts,
    check_steps,
    run_command,
)

STUDY = "long_memory"
OptimizerName = Literal["sgd", "graves", "nadam"]


@dataclass(frozen=True)
class LongMemoryConfig:
    """Train LSTMs on tasks that need a memory, from three starts, with three optimizers.

    Every cell (task, start, optimizer) first tries the learning rates of the optimizer's grid on
    seeds of their own, and rates past its edge while the best lies there; the best is then run
    on the seeds that are reported, all at once. One record for each cell; cells that the file
    holds are not run again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/records/long_memory.jsonl")
    """The file of records, JSON lines."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sizes so small that all of it takes seconds, in place of those below: to see it run."""

    tasks: tuple[TaskName, ...] = get_args(TaskName)
    """What to learn."""

    starts: tuple[Start, ...] = get_args(Start)
    """How the biases start."""

    optimizers: tuple[OptimizerName, ...] = get_args(OptimizerName)
    """What to train with."""

    length: int = 100
    """Steps of a sequence, at least 10."""

    hidden: int = 16
    """Hidden units, at least 1."""

    batch: int = 32
    """Sequences in a training step, at least 1."""

    steps: int = 3000
    """Training steps after which a run has failed, a multiple of --check-every."""

    check_every: int = 100
    """Training steps from one look at the held-out sequences to the next, at least 1."""

    held_out: int = 512
    """Sequences to measure the score with, at least 1."""

    seeds: int = 8
    """Seeds that are reported, at least 1: 0, 1, …"""

    tuning_seeds: int = 2
    """Seeds for the choice of the learning rate, at least 1: 1000, 1001, …"""

    extensions: int = 2
    """How many rates past the edge of the grid may be tried, 0 or more."""

    def check(self) -> None:
        """Raise OptionError for the first value that cannot be."""
        sizes = ("hidden", "batch", "steps", "check_every", "held_out", "seeds", "tuning_seeds")
        check_counts(self, *sizes)
        if self.length < 10:
            raise OptionError(f"--length is {self.length}, but must be at least 10")
        check_steps(self, "check_every")

    def settings(self) -> Record:
        """Return what decides the numbers of a cell, but for which cell it is."""
        cells = ("out", "quick", "tasks", "starts", "optimizers")
        mine = {name: value for name, value in asdict(self).items() if name not in cells}
        return mine | {"optimizers": {name: made.hyper for name, made in OPTIMIZERS.items()}}


QUICK = dict(
    length=10, hidden=4, batch=4, steps=4, check_every=2, held_out=8, seeds=2, extensions=0
)


def run(
    config: LongMemoryConfig,
    command: str = "",
    tell: Tell = lambda line: None,
    progress: Tell = lambda line: None,
) -> list[Record]:
    """Run the cells that the file lacks, and return the records of all that were asked for.

    Args:
      config: what to run.
      command: what the records say that they were made by.
      tell: is told of each cell as it is done.
      progress: is told how far it is.

    Raises:
      OptionError: an option that cannot be, or a file of other records.
    """
    config = replace(config, **QUICK) if config.quick else config
    config.check()
    file = RecordFile(config.out, STUDY, config.settings(), command)
    records = []
    for task, optimizer in product(config.tasks, config.optimizers):
        program = Program(task, optimizer, config)  # compiled once for all starts
        for start in config.starts:
            cell: Record = {"task": task, "start": start, "optimizer": optimizer}
            record = file.find(cell)
            if record is None:
                name = f"{task}, {start}, {optimizer}"
                result = _run_cell(
                    program, start, config, lambda at, n=name: progress(f"{n}: {at}")
                )
                record = file.add(cell, result)
                tell(f"{name}: {describe(record)}")
            records.append(record)
    return records


def describe(record: Record) -> str:
    """Return what came of a cell, in a line."""
    solved = [lane["solved_at"] for lane in record["lanes"] if lane["solved"]]
    when = f", median step {median(solved):g}" if solved else ""
    edge = " (on the edge of the grid)" if record["on_edge"] else ""
    return f"rate {record['rate']:g}{edge}, {len(solved)} of {len(record['lanes'])} solved{when}"


def _run_cell(program: Program, start: Start, config: LongMemoryConfig, progress: Tell) -> Record:
    tuning = _tune(program, start, config, progress)
    rates = sorted({lane["rate"] for lane in tuning})
    best = min(rates, key=lambda rate: _rank(tuning, rate))
    lanes = program.train(start, [(best, seed) for seed in range(config.seeds)], tell=progress)
    return {
        "rate": best,
        "on_edge": best in (rates[0], rates[-1]),
        "baseline": program.task.baseline,
        "solved_below": program.task.solved,
        "lanes": lanes,
        "tuning": tuning,
    }


def _tune(program: Program, start: Start, config: LongMemoryConfig, progress: Tell) -> list[Lane]:
    """Try the grid on seeds of its own, and past its edge while the best lies there.

    It ends as soon as one rate has solved the task with every seed: no other can be better.
    """
    seeds = [1000 + seed for seed in range(config.tuning_seeds)]
    rates, lanes, steps = list(program.optimizer.rates), [], config.steps
    new: Sequence[float] = rates
    for _ in range(config.extensions + 1):
        pairs = [(rate, seed) for rate in new for seed in seeds]
        lanes += program.train(start, pairs, steps=steps, alike=len(seeds), tell=progress)
        best = min(rates, key=lambda rate: _rank(lanes, rate))
        further = beyond(rates, best)
        if further is None:
            break
        new = [further]
        rates.append(further)
        if _rank(lanes, best)[0] == -len(seeds):
            steps = _rank(lanes, best)[1]  # one that takes longer is not better
    return lanes


def _rank(lanes: Sequence[Lane], rate: float) -> tuple[int, int, float]:
    """Return how bad a rate is: fewer seeds solved, a later last one, a higher mean score."""
    mine = [lane for lane in lanes if lane["rate"] == rate]
    solved = [lane["solved_at"] for lane in mine if lane["solved_at"] is not None]
    scores = [float("inf") if lane["score"] is None else lane["score"] for lane in mine]
    return -len(solved), max(solved, default=0), fmean(scores)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from its command line; return the exit status."""
    return run_command(LongMemoryConfig, run, "lstm_optax.studies.memory_sweep", argv)


if __name__ == "__main__":
    sys.exit(main())
