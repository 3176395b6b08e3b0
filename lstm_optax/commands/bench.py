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
from lstm_optax.bench.workloads import WORKLOADS
from lstm_optax.records import core_count, load_average
from lstm_optax.runs.devices import prepare_devices
from lstm_optax.runs.options import OptionError, TrainConfig

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
QUIET = 0.3  # load per core above which the numbers are those of a busy machine


@dataclass(frozen=True)
class Bench:
    """Time the LSTM layer, the whole train step and the optimizers beside other libraries'.

    All contenders take turns in one process; each is first checked to compute what ours computes.
    Every row needs a quiet machine to mean anything. Ctrl-C keeps what was measured.
    """

    config: tyro.conf.OmitArgPrefixes[BenchConfig] = field(default_factory=BenchConfig)

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("bench.jsonl")
    """Append the records to this file, one JSON object to a line."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out the rows that the file has from the same versions, machine and options."""

    show: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure nothing: show, draw and write what the file has."""

    plot: File = None
    """Draw the ratios into this file, a .png."""

    page: File = None
    """Write the tables into this Markdown page, between its two marks."""

    def run(self, console: Console) -> int:
        """Measure, print the tables, draw and write; return the exit status."""
        self._check()
        try:
            interrupted = False if self.show else self._measure(console)
            self._report(console, read_bench(self.out))
        except OSError as error:
            place, why = error.filename or "a file", error.strerror or error
            raise OptionError(f"{place} cannot be written: {why}; name another file") from error
        if interrupted:
            again = shlex.join(["lstm-optax", *_with(sys.argv[1:], "--resume")])
            console.print(f"interrupted; what was measured is in {self.out}. Go on with:")
            console.print(f"  {again}", soft_wrap=True, markup=False)
        return 130 if interrupted else 0

    def _measure(self, console: Console) -> bool:
        """Run the benchmark; return whether it was interrupted."""
        busy, cores = load_average(), core_count()
        if busy > QUIET * cores:
            console.print(
                f"[yellow]warning:[/] the load is {busy}: other programs use these {cores} cores "
                "too, and the times will be theirs as well; measure on a quiet machine",
                soft_wrap=not console.is_terminal,
            )
        prepare_devices(TrainConfig())
        from lstm_optax.bench import BenchScreen
        from lstm_optax.bench.runner import benchmark

        with BenchScreen(console, self.config.rounds) as screen:
            try:
                benchmark(
                    self.config,
                    self.out,
                    resume=self.resume,
                    workloads=WORKLOADS,
                    on_progress=screen.progress,
                    on_record=screen.record,
                )
            except KeyboardInterrupt:
                return True
        return False

    def _report(self, console: Console, records: list[dict[str, Any]]) -> None:
        from lstm_optax.bench import bench_figure, bench_tables, fill_bench_page

        if not console.is_terminal:
            console.width = 10_000  # nothing is folded
        for table in bench_tables(records):
            console.print(table)
        if self.plot:
            bench_figure(records).savefig(self.plot)
            console.print(f"drawn in {escape(str(self.plot))}", soft_wrap=True)
        if self.page:
            text = fill_bench_page(self.page.read_text(encoding="utf-8"), records)
            self.page.write_text(text, encoding="utf-8")
            console.print(f"written into {escape(str(self.page))}", soft_wrap=True)

    def _check(self) -> None:
        """Raise the errors that can be found before JAX takes its time to start."""
        self.config.check(WORKLOADS)
        if self.show and self.resume:
            raise OptionError("--show measures nothing, --resume goes on: take one of them")
        if self.show or self.out.exists():
            read_bench(self.out)  # nothing is appended to a file of another kind
        files = {"out": self.out, "plot": self.plot, "page": self.page}
        for flag, path in files.items():
            if path is not None and not path.parent.is_dir():
                raise OptionError(
                    f"--{flag} {path} cannot be written: there is no folder {path.parent}; name "
                    "another file"
                )
        if self.plot and self.plot.suffix.lower() != ".png":
            raise OptionError(f"--plot {self.plot} must end in .png")
        if self.page:
            self._check_page(self.page)

    def _check_page(self, page: Path) -> None:
        from lstm_optax.bench.markdown import fill_bench_page

        if not page.is_file():
            raise OptionError(f"--page {page} is no file: name a page that has the two marks")
        try:
            fill_bench_page(page.read_text(encoding="utf-8"), [])
        except ValueError as error:
            raise OptionError(f"--page {page}: {error}") from None


def _with(arguments: list[str], flag: str) -> list[str]:
    return arguments if flag in arguments else [*arguments, flag]
