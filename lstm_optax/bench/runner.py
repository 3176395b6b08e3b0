"""The benchmark: for each row and each measure, all contenders in turn."""

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
    LOWER_BOUND,
    MEASURES_BY_KIND,
    OURS,
    QUICK_MEASURES,
    SECONDS,
    STEPS,
    UNROLLS,
    BenchConfig,
    Contender,
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
from lstm_optax.bench.results import Writer, finished_rows, peak_rss, read_bench, run_facts
from lstm_optax.bench.timing import Clock, Samples, quartiles, time_in_turn
from lstm_optax.bench.train_programs import train_program
from lstm_optax.bench.workloads import WORKLOADS, Row, row_facts
from lstm_optax.records import Record, load_average

__all__ = ["benchmark"]

CPU_TOLERANCE = 2e-3  # largest ‖a − b‖/‖b‖ between contenders
OTHER_TOLERANCE = 5e-2  # on other devices matrix products may have fewer digits
UNROLL_ROUNDS = 3  # in which the unroll factors of a contender are compared
MAKERS: Mapping[str, Callable[..., Program]] = {
    "layer": layer_program,
    "train": train_program,
    "optimizer": optimizer_program,
}

Progress = Callable[[str, str, str, int], None]
"""Called with (row, measure, activity, rounds done)."""


def benchmark(
    config: BenchConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    workloads: Mapping[str, Row] = WORKLOADS,
    contenders: Mapping[str, Contender] = CONTENDERS,
    argv: Sequence[str] = tuple(sys.argv),
    clock: Clock = time.perf_counter,
    on_progress: Progress = lambda row, measure, activity, done: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Time the LSTM layer, the train step and the optimizers of this library and of others.

    All contenders of a row take turns in this process. A contender is timed only if it computes the
    same values as this library. Each record is written at once, so that a stopped run loses
    nothing.

    Args:
      config: rows, contenders, rounds.
      out: the file to append records to; see `read_bench`.
      resume: skip the rows that runs in `out` with the same versions and machine have finished.
      workloads: the available rows.
      contenders: the available libraries to compare with.
      argv: the command, for the records.
      clock: the clock that times the contenders.
      on_progress: called with row, measure, activity, and the number of rounds done.
      on_record: called with each record.

    Returns:
      The records of this run.

    Raises:
      OptionError: an unknown name, a number out of range, or `out` is a file of other content.
    """
    config.check(workloads, contenders)
    facts = run_facts(config, argv, contenders)
    before = read_bench(out) if out and out.exists() else []  # rejects a file of other content
    done = finished_rows(before, facts) if resume else set()
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
            comparison = _Comparison(name, row, config, contenders, clock, on_progress)
            for measure in MEASURES_BY_KIND[row.kind]:
                if measure in QUICK_MEASURES or not config.quick:
                    for result in comparison.run(measure):
                        write("result", {"row": name, "measure": measure, **result})
            end = {"row": name, "seconds": round(time.perf_counter() - began, 1)}
            write("end", end | {"load": load_average(), "peak_rss": peak_rss()})
    return writer.records


class _Comparison:
    """The contenders of one row.

    Args:
      name: name of the row.
      row: the row.
      config: contenders, rounds, seed.
      contenders: the available libraries to compare with.
      clock: the clock that times them.
      on_progress: called with row, measure, activity, and the number of rounds done.
    """

    def __init__(
        self,
        name: str,
        row: Row,
        config: BenchConfig,
        contenders: Mapping[str, Contender],
        clock: Clock,
        on_progress: Progress,
    ):
        self.name, self.row, self.config, self.contenders = name, row, config, contenders
        self.clock, self.on_progress = clock, on_progress
        self.rng = np.random.default_rng(config.seed)
        self.tried: dict[str, dict[str, float]] = {}  # seconds per step by unroll factor
        self.unrolls: dict[str, int] = {}

    def run(self, measure: str) -> list[Record]:
        """Time one measure, and return a result for each contender."""
        programs, results = {}, {}
        reference: Values = {}
        chosen = self.config.chosen_contenders(self.row, self.contenders)
        for name in (OURS, *chosen, LOWER_BOUND):
            self.on_progress(self.name, measure, f"compiling {name}", 0)
            try:
                program, values = self._make_program(name, measure)
            except (Unavailable, MemoryError, RuntimeError) as reason:
                results[name] = {"contender": name, "status": _status_of(reason)}
                continue
            reference = values if name == OURS else reference
            compared = name not in (OURS, LOWER_BOUND) and self.row.comparable
            error = deviation(values, reference) if compared else None
            results[name] = self._program_facts(name, program, error)
            if results[name]["status"] == "measured":
                programs[name] = program
        if OURS not in programs:  # nothing to compare with
            return list(results.values())
        samples = self._time(programs, measure, self.config.rounds, SECONDS[self.config.quick])
        for name, taken in samples.items():
            results[name] |= _summarize(taken, samples)
        return list(results.values())

    def _make_program(self, name: str, measure: str) -> tuple[Program, Values]:
        """Return the program of a contender, and the values of its first call.

        The values are compared then: the next calls continue from the state of the first.
        """
        if name in self.contenders and not self.contenders[name].installed():
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
        samples = self._time(named, measure, UNROLL_ROUNDS, SECONDS[True])
        self.tried[name] = {unroll: float(np.median(taken)) for unroll, taken in samples.items()}
        self.unrolls[name] = min(made, key=lambda unroll: self.tried[name][str(unroll)])
        return made[self.unrolls[name]]

    def _time(self, programs: Mapping[str, Program], measure: str, rounds: int, seconds: float):
        def on_round(done: int) -> None:
            self.on_progress(self.name, measure, "timing", done)

        return time_in_turn(
            programs, rounds, self.rng, seconds=seconds, clock=self.clock, on_round=on_round
        )

    def _program_facts(self, name: str, program: Program, error: float | None) -> Record:
        """Return the fields of a result that need no timing."""
        tolerance = CPU_TOLERANCE if jax.default_backend() == "cpu" else OTHER_TOLERANCE
        correct = error is None or error <= tolerance
        facts = {
            "contender": name,
            "status": "measured" if correct else "other values than ours: not timed",
            "steps": program.steps,
            "compile_seconds": program.compile_seconds,
            "temp_bytes": program.temp_bytes,
            "deviation": error,
        }
        if name in SCANS:
            facts |= {"unroll": self.unrolls.get(name, UNROLLS[0])}
            facts |= {"tried": self.tried.get(name, {})}
        return facts


def _status_of(error: Exception) -> str:
    """Return why a contender cannot run; raise any error of another kind again."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|out of memory", str(error)):
        return "out of memory"
    raise error


def _summarize(taken: np.ndarray, samples: Samples) -> Record:
    """Return the quartiles of the seconds per step, and of the ratios within each round."""
    summary: Record = {"rounds": len(taken), "seconds": quartiles(taken)}
    summary |= {"ratio": quartiles(taken / samples[OURS])}
    if LOWER_BOUND in samples:
        summary |= {"lower_bound": quartiles(samples[LOWER_BOUND] / taken)}
    return summary
