"""What studies share: a file of records that a stopped study goes on from, and its command line."""

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax.data import TextError
from lstm_optax.runs.options import OptionError

Config = TypeVar("Config")
Record = dict[str, Any]
Tell = Callable[[str], None]

FACTOR = 10**0.5  # from one learning rate to the next, rounded to 1 and 3 times powers of ten
PACKAGES = ("lstm_optax", "jax", "jaxlib", "flax", "optax", "numpy")


class RecordFile:
    """A file of JSON lines, one for each cell of a study: a study goes on where the file ends.

    Args:
      path: need not exist.
      study: the study's name.
      settings: all that decides its numbers, but for which cell it is.
      command: what the records say that they were made by.

    Raises:
      OptionError: the file holds other things than records of this study at these settings.
    """

    def __init__(self, path: Path, study: str, settings: Record, command: str):
        self.path: Path = path
        self.study: str = study
        self.settings: Record = _plain(settings)
        self.made_by: Record = made_by(command)  # now: the code may be another when a cell is done
        self.read()

    def read(self) -> list[Record]:
        """Return the records that are there."""
        return [self._record_of(*line) for line in enumerate(self._lines(), 1)]

    def find(self, cell: Record) -> Record | None:
        """Return the record of a cell, None if it is not there; others may write the file too."""
        return next((record for record in self.read() if record["cell"] == cell), None)

    def add(self, cell: Record, result: Record) -> Record:
        """Write the record of a cell, with what made it, and return it as it is read again."""
        record: Record = {"study": self.study, "cell": cell, "settings": self.settings}
        record = _plain(record | result | {"made_by": self.made_by})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:  # in one write: others may write too
            file.write(json.dumps(record, allow_nan=False) + "\n")
        return record

    def _lines(self) -> list[str]:
        """The whole lines; one that was cut off as it was written is taken away."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        return whole.splitlines()

    def _record_of(self, number: int, line: str) -> Record:
        remedy = f"name another file with --out, or take {self.path} away"
        try:
            record = json.loads(line)
            study, settings, _ = record["study"], record["settings"], record["cell"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise OptionError(f"line {number} of {self.path} is no record: {remedy}") from None
        if study != self.study:
            raise OptionError(f"{self.path} holds records of {study}, not {self.study}: {remedy}")
        names = sorted(settings.keys() | self.settings.keys())
        other = [name for name in names if settings.get(name) != self.settings.get(name)]
        if other:
            came, has = self.settings.get(other[0]), settings.get(other[0])
            raise OptionError(
                f"{self.path} holds records of other settings, {other[0]} {has} and not {came}: "
                f"{remedy}"
            )
        return record


def made_by(command: str) -> Record:
    """Return the command, the versions and the device that a record is made by."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "command": command,
        "versions": {"python": python} | {package: version(package) for package in PACKAGES},
        "commit": _commit(),
        "device": jax.devices()[0].device_kind,
    }


def beyond(rates: Sequence[float], best: float) -> float | None:
    """Return the next rate past the edge of the tried ones that the best lies on, else None."""
    edges = {min(rates): best / FACTOR, max(rates): best * FACTOR}
    return _one_or_three(edges[best]) if best in edges else None


def check_counts(config: Any, *names: str) -> None:
    """Raise OptionError for the first of these options that is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"{flag} is {getattr(config, name)}, but must be at least 1")


def check_steps(config: Any, every: str) -> None:
    """Raise OptionError for extensions below 0, or steps that are no multiple of `every`."""
    if config.extensions < 0:
        raise OptionError(f"--extensions is {config.extensions}, but must be 0 or more")
    interval = getattr(config, every)
    if config.steps % interval:
        raise OptionError(
            f"--steps is {config.steps}, but must be a multiple of --{every.replace('_', '-')} "
            f"{interval}"
        )


def run_command(
    config: type[Config],
    run: Callable[[Config, str, Tell, Tell], list[Record]],
    module: str,
    argv: Sequence[str] | None,
) -> int:
    """Run a study from its command line; return the exit status: 0, 2 for bad input, 130 stopped.

    Args:
      config: a dataclass, of which the flags are made.
      run: (config, command, tell of a finished cell, tell of progress) → records.
      module: of the study, whose docstring is the help.
      argv: the flags; those of the process if None.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = f"python -m {module}"
    given = tyro.cli(config, args=argv, prog=prog)
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        with console.status("compiling") as status:

            def tell(line: str) -> None:
                console.print(escape(line), soft_wrap=True)

            run(
                given,
                f"{prog} {shlex.join(argv)}".strip(),
                tell,
                lambda line: status.update(escape(line)),
            )
    except (OptionError, TextError, OSError) as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("stopped; the same command goes on from the cells that are done")
        return 130
    return 0


def _one_or_three(rate: float) -> float:
    exponent = math.floor(math.log10(rate) + 0.25)  # 0.9… counts as 1, and 2.9… as 3
    return float(f"{1 if rate < 2 * 10.0**exponent else 3}e{exponent}")


def _commit() -> str | None:
    """The commit of the package, marked -dirty where it is not as committed; None outside Git."""
    here = Path(__file__)
    package = here.parents[1]
    if not _git(package, "ls-files", str(here)):  # a repository around it that does not hold it
        return None
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{_git(package, 'rev-parse', 'HEAD')}{'-dirty' if changed else ''}"


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back; null stands for a number that is not finite."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
