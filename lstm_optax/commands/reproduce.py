"""The command `lstm-optax reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstm_optax.commands.study_options import STUDIES, Whole, command_line, keep_study
from lstm_optax.records import core_count
from lstm_optax.reproductions.published import REPRODUCTIONS, find_reproduction
from lstm_optax.runs.constraints import check_fields
from lstm_optax.runs.devices import prepare_devices

Name = Annotated[
    str | None,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="[NAME]",
        help=f"Published result: {', '.join(REPRODUCTIONS)}. Without a name, print a table of all.",
    ),
]


@dataclass(frozen=True)
class Reproduce:
    """Train what a published result needs, and print our numbers next to the published ones.

    Writes records.jsonl to the folder. A stopped reproduction continues with the same command. Data
    are read from a file of yours and never downloaded.
    """

    name: Name = None

    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file that the result needs; the table says which, and an error where to get it."""

    seeds: Whole = None
    """Number of seeds, at least 2; by default those of the table."""

    epochs: Whole = None
    """Passes over the data, where the length can be chosen; by default those of the table."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the records; by default studies/NAME."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use very small sizes, to see everything within a minute; the results mean nothing."""

    def run(self, console: Console) -> int:
        """Run the trials and print the table; return the exit status."""
        check_fields(self)
        if self.name is None:
            return self._print_table(console)
        found = find_reproduction(self.name)
        found.check_arguments(self.data, self.epochs)
        folder = self.out or STUDIES / (f"{self.name}-quick" if self.quick else self.name)
        prepare_devices(0, core_count())

        from lstm_optax.commands.study_screen import StudyScreen
        from lstm_optax.reproductions import reproduced_grid
        from lstm_optax.reproductions._reproduce import make_plan
        from lstm_optax.studies.study_grid import grid_table
        from lstm_optax.studies.study_records import RECORDS_FILE

        with console.status("preparing the data"):
            plan = make_plan(
                self.name, data=self.data, seeds=self.seeds, epochs=self.epochs, quick=self.quick
            )
        keep_study(console, folder)
        console.print(f"{self.name}: {found.claim}", markup=False, soft_wrap=True)
        console.print(f"{plan.trials} trials, folder {folder}", markup=False, soft_wrap=True)
        task = plan.task
        with StudyScreen(console, task.metric, task.steps, plan.evaluations) as screen:
            records = plan.run(folder, command_line(), screen.evaluation)
        if not console.is_terminal:
            console.width = 10_000  # do not wrap lines in a file or a pipe
        console.print("", grid_table(reproduced_grid(records)))
        console.print(f"\nrecords  {folder / RECORDS_FILE}", markup=False, soft_wrap=True)
        return 0

    def _print_table(self, console: Console) -> int:
        for found in REPRODUCTIONS.values():
            facts = {
                "published": f"{found.claim} ({found.source})",
                "trained": f"{found.trained}, {found.length}",
                "needs": f"--data FILE, {found.data.content}" if found.data else "no file",
            }
            console.print(found.name, style="bold", markup=False)
            for name, text in facts.items():
                console.print(_indented(name, text))
        return 0


def _indented(name: str, text: str) -> Table:
    """Return a line with a name in front, whose text wraps under itself."""
    line = Table.grid(padding=(0, 1, 0, 2))
    line.add_column(min_width=9)
    line.add_column()
    line.add_row(name, Text(text))
    return line
