"""Common parts of the studies: the file of records, the grid of rates, the command line."""

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax.data import TextError
from lstm_optax.records import (
    Record,
    append_record,
    as_json,
    drop_torn_line,
    provenance,
    read_records,
)
from lstm_optax.runs.constraints import OptionError, flag_of

Config = TypeVar("Config")
OnLine = Callable[[str], None]
"""Called with a line of text about the progress."""

FACTOR = 10**0.5  # between neighbouring rates, which are rounded to 1 or 3 times a power of ten


class RecordFile:
    """A file of JSON lines, one per cell of a study; a stopped study continues from its file.

    Args:
      path: the file, which may not exist yet.
      study: name of the study.
      settings: everything that affects the results, except the cell's coordinates.
      command: the command, for the records.

    Raises:
      OptionError: the file holds other content, or records of another study or other settings.
    """

    def __init__(self, path: Path, study: str, settings: Record, command: str):
        self.path: Path = path
        self.study: str = study
        self.settings: Record = as_json(settings)
        self.made_by: Record = provenance(command)  # now, as the code may change before a cell ends
        self.read()

    def read(self) -> list[Record]:
        """Return all records, and remove a torn last line."""
        records = read_records(self.path) if self.path.exists() else []
        checked = [self._checked(number, record) for number, record in enumerate(records, 1)]
        drop_torn_line(self.path)  # after the check: the file may be somebody else's
        return checked

    def find(self, cell: Record) -> Record | None:
        """Return the record of a cell, None if there is none; other processes may add records."""
        return next((record for record in self.read() if record["cell"] == cell), None)

    def add(self, cell: Record, result: Record) -> Record:
        """Append the record of a cell with its provenance, and return it as JSON stores it."""
        record: Record = {"study": self.study, "cell": cell, "settings": self.settings}
        record = as_json(record | result | {"made_by": self.made_by})
        append_record(self.path, record)
        return record

    def _checked(self, number: int, record: Record | None) -> Record:
        """Return a record of this study with these settings; raise OptionError for any other."""
        remedy = f"name another file with --out, or remove {self.path}"
        if record is None or not record.keys() >= {"study", "settings", "cell"}:
            raise OptionError(f"line {number} of {self.path} is not a record: {remedy}")
        study, settings = record["study"], record["settings"]
        if study != self.study:
            raise OptionError(f"{self.path} holds records of {study}, not {self.study}: {remedy}")
        names = sorted(settings.keys() | self.settings.keys())
        different = [name for name in names if settings.get(name) != self.settings.get(name)]
        if different:
            expected, found = self.settings.get(different[0]), settings.get(different[0])
            raise OptionError(
                f"{self.path} holds records of other settings, {different[0]} {found} and not "
                f"{expected}: {remedy}"
            )
        return record


def rate_past_edge(rates: Sequence[float], best: float) -> float | None:
    """Return the next rate past the edge of the tried rates if the best is at it, else None."""
    edges = {min(rates): best / FACTOR, max(rates): best * FACTOR}
    return _round_to_one_or_three(edges[best]) if best in edges else None


def check_multiple(steps: int, name: str, interval: int) -> None:
    """Raise OptionError unless the steps are a multiple of the interval, an option `name`."""
    if steps % interval:
        raise OptionError(
            f"--steps is {steps}, but must be a multiple of {flag_of(name)} {interval}"
        )


def run_command(
    config: type[Config],
    run: Callable[[Config, str, OnLine, OnLine], list[Record]],
    module: str,
    argv: Sequence[str] | None,
) -> int:
    """Run a study from its command line, and return the exit status.

    The status is 0, 2 for invalid input, or 130 if the user stops the study.

    Args:
      config: the dataclass of the options; its docstrings are the help.
      run: (config, command, on_cell, on_progress) → records.
      module: the module of the study.
      argv: the flags; the arguments of the process by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = f"python -m {module}"
    given = tyro.cli(config, args=argv, prog=prog)
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        with console.status("compiling") as status:

            def on_cell(line: str) -> None:
                console.print(escape(line), soft_wrap=True)

            def on_progress(line: str) -> None:
                status.update(escape(line))

            run(given, f"{prog} {shlex.join(argv)}".strip(), on_cell, on_progress)
    except (OptionError, TextError, OSError) as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("stopped; run the same command again to continue")
        return 130
    return 0


def _round_to_one_or_three(rate: float) -> float:
    exponent = math.floor(math.log10(rate) + 0.25)  # 0.9… rounds to 1, and 2.9… to 3
    return float(f"{1 if rate < 2 * 10.0**exponent else 3}e{exponent}")
