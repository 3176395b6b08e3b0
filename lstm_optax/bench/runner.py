"""The benchmark itself: row after row, measure after measure, all contenders in turn."""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lstm_optax.bench.adapters import SCANS
from lstm_optax.bench.config import (
    CONTENDERS,
    FLOOR,
    MEASURES,
    OURS,
    QUICK_MEASURES,
    SECONDS,
    STEPS,
    UNROLLS,
    BenchConfig,
)
from lstm_optax.bench.layer_programs import layer_program
from lstm_optax.bench.optimizer_programs import optimizer_program
from lstm_optax.bench.programs import (
    Program,
    Unavailable,
    Values,
    deviation,
    without_cache,
)
from lstm_optax.bench.results import (
    Record,
    Writer,
    finished_rows,
    load,
    machine_facts,
    peak_rss,
    read_bench,
)
from lstm_optax.bench.timing import Samples, quartiles, time_in_turn
from lstm_optax.bench.train_programs import train_program
from lstm_optax.bench.workloads import WORKLOADS, Row, row_facts

__all__ = ["benchmark"]

TOLERANCES = {
    "cpu": 2e-3
}  # ‖a − b‖/‖b‖ between contenders; on others products may have less digits
LOOSE = 5e-2
TRIAL_ROUNDS = 3
MAKERS: Mapping[str, Callable[..., Program]] = {
    "layer": layer_program,
    "train": train_program,
    "optimizer": optimizer_program,
}

Progress = Callable[[str, str, str, int], None]
"""(row, measure, what is done, round)."""


def benchmark(
    config: BenchConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    workloads: Mapping[str, Row] = WORKLOADS,
    argv: Sequence[str] = tuple(sys.argv),
    on_progress: Progress = lambda row, measure, what, done: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Time the LSTM layer, the train step and the optimizers of this library beside others'.

    All contenders of a row run in turn in this process. Each is first checked to compute what ours
    computes. Records are written as they come, so that nothing is lost if the run is stopped.

    Args:
      config: rows, contenders, rounds.
      out: the file to append records to; see `read_bench`.
      resume: leave out the rows that runs in `out` with the same versions and machine have done.
      workloads: the rows there are.
      argv: the command, for the records.
      on_progress: called with row, measure, what is being done, and the round.
      on_record: called with each record.

    Returns:
      The records of this run.

    Raises:
      OptionError: a name that is unknown, or a number out of range.
    """
    config.check(workloads)
    facts = machine_facts(config, argv)
    before = read_bench(out) if resume and out and out.exists() else []
    done = finished_rows(before, facts)
    writer = Writer(out, facts["time"])

    def write(kind: str, values: Mapping[str, Any]) -> None:
        on_record(writer.write(kind, values))

    write("run", facts)
    with without_cache():
        for name in config.chosen_rows(workloads):
            if name in done:
                continue
            row, began = workloads[name], time.perf_counter()
            write("row", {"row": name, **row_facts(row)})
            race = _Race(name, row, config, on_progress)
            for measure in MEASURES[row.kind]:
                if measure in QUICK_MEASURES or not config.quick:
                    for result in race.run(measure):
                        write("result", {"row": name, "measure": measure, **result})
            seconds = round(time.perf_counter() - began, 1)
            write("end", {"row": name, "seconds": seconds, "load": load(), "peak_rss": peak_rss()})
    return writer.records


class _Race:
    """The contenders of a row."""

    def __init__(self, name: str, row: Row, config: BenchConfig, on_progress: Progress):
        self.name, self.row, self.config, self.on_progress = name, row, config, on_progress
        self.rng = np.random.default_rng(config.seed)
        self.tried: dict[str, dict[str, float]] = {}  # seconds of a step by unroll
        self.unrolls: dict[str, int] = {}

    def run(self, measure: str) -> list[Record]:
        """Time one measure, and return a result for each contender."""
        programs, results = {}, {}
        reference: Values = {}
        for name in (OURS, *self.config.chosen_contenders(self.row), FLOOR):
            self.on_progress(self.name, measure, f"compiling {name}", 0)
            try:
                program, values = self._make(name, measure)
            except (Unavailable, MemoryError, RuntimeError) as reason:
                results[name] = {"contender": name, "status": _status(reason)}
                continue
            reference = values if name == OURS else reference
            compared = name not in (OURS, FLOOR) and self.row.alike
            error = deviation(values, reference) if compared else None
            results[name] = self._facts(name, program, error)
            if results[name]["status"] == "measured":
                programs[name] = program
        if OURS not in programs:  # with nothing to compare with
            return list(results.values())
        samples = self._time(programs, measure, self.config.rounds, SECONDS[self.config.quick])
        for name, taken in samples.items():
            results[name] |= _numbers(taken, samples)
        return list(results.values())

    def _make(self, name: str, measure: str) -> tuple[Program, Values]:
        """The program of a contender, and what its first call computes; later ones go on."""
        if name in CONTENDERS and not CONTENDERS[name].installed():
            raise Unavailable("not installed")

        def make(**options: int) -> tuple[Program, Values]:
            maker, seed = MAKERS[self.row.kind], self.config.seed
            program = maker(name, self.row, measure, STEPS, seed, **options)
            return program, program.values(program.call())

        if name not in SCANS or self.row.kind == "optimizer":
            return make()
        if name in self.unrolls or self.config.quick:
            return make(unroll=self.unrolls.get(name, UNROLLS[0]))
        made = {unroll: make(unroll=unroll) for unroll in UNROLLS}
        named = {str(unroll): program for unroll, (program, _) in made.items()}
        samples = self._time(named, measure, TRIAL_ROUNDS, SECONDS[True])
        self.tried[name] = {unroll: float(np.median(taken)) for unroll, taken in samples.items()}
        self.unrolls[name] = min(made, key=lambda unroll: self.tried[name][str(unroll)])
        return made[self.unrolls[name]]

    def _time(self, programs: Mapping[str, Program], measure: str, rounds: int, seconds: float):
        def on_round(done: int) -> None:
            self.on_progress(self.name, measure, "timing", done)

        return time_in_turn(programs, rounds, self.rng, seconds=seconds, on_round=on_round)

    def _facts(self, name: str, program: Program, error: float | None) -> Record:
        """What is known of a program before it is timed."""
        tolerance = TOLERANCES.get(jax.default_backend(), LOOSE)
        right = error is None or error <= tolerance
        facts = {
            "contender": name,
            "status": "measured" if right else "other values than ours: not timed",
            "steps": program.steps,
            "compile_seconds": program.compile_seconds,
            "temp_bytes": program.temp_bytes,
            "deviation": error,
        }
        if name in SCANS:
            facts |= {"unroll": self.unrolls.get(name, UNROLLS[0])}
            facts |= {"tried": self.tried.get(name, {})}
        return facts


def _status(error: Exception) -> str:
    """Why a contender cannot serve; an error of another kind is raised again."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|out of memory", str(error)):
        return "out of memory"
    raise error


def _numbers(taken: np.ndarray, samples: Samples) -> Record:
    """Quartiles of the seconds per step, and of the ratios within each round."""
    numbers = {"rounds": len(taken), "seconds": quartiles(taken)}
    numbers |= {"ratio": quartiles(taken / samples[OURS])}
    return numbers | ({"floor": quartiles(samples[FLOOR] / taken)} if FLOOR in samples else {})
