"""The command `lstm-optax bench`."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax.bench.config import BenchConfig
from lstm_optax.bench.results import read_bench
from lstm_optax.bench.workloads import WORKLOADS, TrainRow
from lstm_optax.commands.output import keep_running
from lstm_optax.commands.signals import STOP
from lstm_optax.records import core_count, load_average
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.devices import prepare_devices

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
QUIET = 0.3  # load per core above which the timings are not reliable
TRAIN_ROWS = max(row.batch for row in WORKLOADS.values() if isinstance(row, TrainRow))


@dataclass(frozen=True)
class Bench:
    """Time the LSTM layer, the train step and the optimizers, and compare with other libraries.

    All libraries take turns in one process, after a check that they compute the same values. Run it
    on a quiet machine. Ctrl-C keeps the results so far.
    """

    config: tyro.conf.OmitArgPrefixes[BenchConfig] = field(default_factory=BenchConfig)

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("bench.jsonl")
    """Append the records to this file, one JSON object per line."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Skip the rows that the file has from the same versions, machine and options."""

    show: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure nothing; show the records in the file."""

    plot: File = None
    """Save a chart of the ratios to this file, a .png."""

    page: File = None
    """Write the tables between the two marks in this Markdown page."""

    def run(self, console: Console) -> int:
        """Measure, print the tables, and write the chart and the page; return the exit status."""
        self._check()
        keep_running(console)
        try:
            if not self.show:
                self._measure(console)
            self._report(console, read_bench(self.out))
        except OSError as error:
            place, why = error.filename or "a file", error.strerror or error
            raise OptionError(f"{place} cannot be written: {why}; choose another file") from error
        return 0

    def _measure(self, console: Console) -> None:
        """Run the benchmark; a signal ends the process between two records."""
        again = shlex.join(["lstm-optax", *sys.argv[1:], *([] if self.resume else ["--resume"])])
        STOP.last_words = lambda: (
            f"stopped; the results so far are in {self.out}. Continue with:\n  {again}"
        )
        busy, cores = load_average(), core_count()
        if busy > QUIET * cores:
            console.print(
                f"[yellow]warning:[/] the load is {busy} on {cores} cores: other programs are "
                "running, so the timings will not be reliable; measure on a quiet machine",
                soft_wrap=not console.is_terminal,
            )
        prepare_devices(TRAIN_ROWS)
        from lstm_optax.bench import BenchScreen
        from lstm_optax.bench.runner import benchmark
        from lstm_optax.lstm.availability import describe_backends

        console.print(f"backends: {describe_backends()}", soft_wrap=not console.is_terminal)

        with BenchScreen(console, self.config.rounds) as screen:
            benchmark(
                self.config,
                self.out,
                resume=self.resume,
                workloads=WORKLOADS,
                on_progress=screen.progress,
                on_record=screen.record,
            )

    def _report(self, console: Console, records: list[dict[str, Any]]) -> None:
        from lstm_optax.bench import bench_figure, bench_tables, fill_bench_page

        if not console.is_terminal:
            console.width = 10_000  # do not wrap lines in a file or a pipe
        for table in bench_tables(records):
            console.print(table)
        if self.plot:
            bench_figure(records).savefig(self.plot)
            console.print(f"saved {escape(str(self.plot))}", soft_wrap=True)
        if self.page:
            text = fill_bench_page(self.page.read_text(encoding="utf-8"), records)
            self.page.write_text(text, encoding="utf-8")
            console.print(f"updated {escape(str(self.page))}", soft_wrap=True)

    def _check(self) -> None:
        """Raise the errors that can be detected before JAX is imported."""
        self.config.check(WORKLOADS)
        if self.show and self.resume:
            raise OptionError("--show measures nothing and --resume continues: pass only one")
        if self.show or self.out.exists():
            read_bench(self.out)  # raises if the file contains other records
        files = {"out": self.out, "plot": self.plot, "page": self.page}
        for flag, path in files.items():
            if path is not None and not path.parent.is_dir():
                raise OptionError(
                    f"--{flag} {path} cannot be written: the folder {path.parent} does not exist; "
                    "choose another file"
                )
        if self.plot and self.plot.suffix.lower() != ".png":
            raise OptionError(f"--plot {self.plot} must end in .png")
        if self.page:
            self._check_page(self.page)

    def _check_page(self, page: Path) -> None:
        from lstm_optax.bench.markdown import fill_bench_page

        if not page.is_file():
            raise OptionError(f"--page {page} does not exist: choose a page that has the two marks")
        try:
            fill_bench_page(page.read_text(encoding="utf-8"), [])
        except ValueError as error:
            raise OptionError(f"--page {page}: {error}") from None
