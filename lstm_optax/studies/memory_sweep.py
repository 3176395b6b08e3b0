"""A sweep of optimizers and initial biases on tasks that need a memory: successes over seeds."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Literal, get_args

import tyro

from lstm_optax.records import Record
from lstm_optax.runs.constraints import Count, CountOrZero, check_fields, whole_numbers
from lstm_optax.studies.memory_trainer import (
    TUNED_OPTIMIZERS,
    MemoryTrainer,
    Start,
    TaskName,
    Trial,
)
from lstm_optax.studies.study import (
    OnLine,
    RecordFile,
    check_multiple,
    rate_past_edge,
    run_command,
)

STUDY = "long_memory"
OptimizerName = Literal["sgd", "graves", "nadam"]


@dataclass(frozen=True)
class LongMemoryConfig:
    """Train LSTMs on tasks that need a memory, from three starts, with three optimizers.

    Each cell (task, start, optimizer) first tries the learning rates of the optimizer's grid on
    separate tuning seeds, and extends the grid while the best rate is at its edge. It then runs all
    reported seeds at the best rate. The file gets one record per cell; cells with a record are not
    run again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/records/long_memory.jsonl")
    """File of the records, JSON lines."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the sizes below by very small ones, to try the study in seconds."""

    tasks: tuple[TaskName, ...] = get_args(TaskName)
    """Tasks to learn."""

    starts: tuple[Start, ...] = get_args(Start)
    """Initial biases."""

    optimizers: tuple[OptimizerName, ...] = get_args(OptimizerName)
    """Optimizers to train with."""

    length: Annotated[int, whole_numbers(10)] = 100
    """Steps of a sequence, at least 10."""

    hidden: Count = 16
    """Hidden units, at least 1."""

    batch: Count = 32
    """Sequences in a training step, at least 1."""

    steps: Count = 3000
    """Training steps after which a trial has failed, a multiple of --check-every."""

    check_every: Count = 100
    """Training steps between checks of the held-out score, at least 1."""

    held_out: Count = 512
    """Held-out sequences of the score, at least 1."""

    seeds: Count = 8
    """Number of reported seeds, at least 1: 0, 1, …"""

    tuning_seeds: Count = 2
    """Number of seeds to tune the learning rate with, at least 1: 1000, 1001, …"""

    extensions: CountOrZero = 2
    """Largest number of rates to try past the edge of the grid, 0 or more."""

    def check(self) -> None:
        """Raise OptionError for the first invalid value."""
        check_fields(self)
        check_multiple(self.steps, "check_every", self.check_every)

    def settings(self) -> Record:
        """Return everything that affects the results, except the cell's coordinates."""
        free = ("out", "quick", "tasks", "starts", "optimizers")
        settings = {name: value for name, value in asdict(self).items() if name not in free}
        hyper = {name: tuned.hyper for name, tuned in TUNED_OPTIMIZERS.items()}
        return settings | {"optimizers": hyper}


QUICK_SIZES = dict(
    length=10, hidden=4, batch=4, steps=4, check_every=2, held_out=8, seeds=2, extensions=0
)


def run(
    config: LongMemoryConfig,
    command: str = "",
    on_cell: OnLine = lambda line: None,
    on_progress: OnLine = lambda line: None,
) -> list[Record]:
    """Run the cells without a record in the file, and return the records of all chosen cells.

    Args:
      config: the options.
      command: the command, for the records.
      on_cell: called with a line of text after each cell.
      on_progress: called with a line of text about the progress.

    Raises:
      OptionError: an invalid option, or a file of other records.
    """
    config = replace(config, **QUICK_SIZES) if config.quick else config
    config.check()
    file = RecordFile(config.out, STUDY, config.settings(), command)
    records = []
    for task, optimizer in product(config.tasks, config.optimizers):
        trainer = MemoryTrainer(task, optimizer, config)  # compiles once for all starts
        for start in config.starts:
            cell: Record = {"task": task, "start": start, "optimizer": optimizer}
            record = file.find(cell)
            if record is None:
                name = f"{task}, {start}, {optimizer}"
                result = _run_cell(
                    trainer, start, config, lambda line, n=name: on_progress(f"{n}: {line}")
                )
                record = file.add(cell, result)
                on_cell(f"{name}: {describe(record)}")
            records.append(record)
    return records


def describe(record: Record) -> str:
    """Return the result of a cell in a line of text."""
    solved_at = [trial["solved_at"] for trial in record["trials"] if trial["solved"]]
    count = f"{len(solved_at)} of {len(record['trials'])}"
    when = f", median step {median(solved_at):g}" if solved_at else ""
    edge = " (at the edge of the grid)" if record["on_edge"] else ""
    return f"rate {record['rate']:g}{edge}, {count} solved{when}"


def _run_cell(
    trainer: MemoryTrainer, start: Start, config: LongMemoryConfig, on_progress: OnLine
) -> Record:
    tuning = _tune_rate(trainer, start, config, on_progress)
    rates = sorted({trial["rate"] for trial in tuning})
    best = min(rates, key=lambda rate: _rank_of_rate(tuning, rate))
    pairs = [(best, seed) for seed in range(config.seeds)]
    return {
        "rate": best,
        "on_edge": best in (rates[0], rates[-1]),
        "baseline": trainer.task.baseline,
        "solved_below": trainer.task.solved,
        "trials": trainer.train(start, pairs, on_progress=on_progress),
        "tuning": tuning,
    }


def _tune_rate(
    trainer: MemoryTrainer, start: Start, config: LongMemoryConfig, on_progress: OnLine
) -> list[Trial]:
    """Try the grid on the tuning seeds, and extend it while the best rate is at its edge.

    A round of trials ends as soon as one rate has solved the task with every seed: no other rate
    can be better then.
    """
    seeds = [1000 + seed for seed in range(config.tuning_seeds)]
    rates, trials, steps = list(trainer.optimizer.rates), [], config.steps
    new: Sequence[float] = rates
    for _ in range(config.extensions + 1):
        pairs = [(rate, seed) for rate in new for seed in seeds]
        trials += trainer.train(
            start, pairs, steps=steps, group_size=len(seeds), on_progress=on_progress
        )
        best = min(rates, key=lambda rate: _rank_of_rate(trials, rate))
        further = rate_past_edge(rates, best)
        if further is None:
            break
        new = [further]
        rates.append(further)
        if _rank_of_rate(trials, best)[0] == -len(seeds):
            steps = _rank_of_rate(trials, best)[1]  # a slower rate is not better
    return trials


def _rank_of_rate(trials: Sequence[Trial], rate: float) -> tuple[int, int, float]:
    """Return the rank of a rate, the best first: most solved seeds, earliest step, lowest score."""
    chosen = [trial for trial in trials if trial["rate"] == rate]
    solved_at = [trial["solved_at"] for trial in chosen if trial["solved_at"] is not None]
    scores = [float("inf") if trial["score"] is None else trial["score"] for trial in chosen]
    return -len(solved_at), max(solved_at, default=0), fmean(scores)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from its command line, and return the exit status."""
    return run_command(LongMemoryConfig, run, "lstm_optax.studies.memory_sweep", argv)


if __name__ == "__main__":
    sys.exit(main())
