"""The command `lstm-optax advise`."""

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from lstm_optax.commands.sample import Folder
from lstm_optax.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Advise:
    """Say what the records of a run show, and what to change.

    Each finding has its numbers, its threshold, a confidence and a remedy. The rules about gates
    and about the size of updates need a run with --diagnose.
    """

    run: Folder = None
    """Run folder; by default the newest run in runs/."""


def run_advise(command: Advise, console: Console) -> int:
    """Print the findings of a run; return the exit status."""
    run = RunFolder(command.run) if command.run else RunFolder.newest()
    print_advice(console, run)
    return 0


def print_advice(console: Console, run: RunFolder) -> None:
    """Print the findings of a run, and what the records lack."""
    from lstm_optax.runs import advise, findings_table

    if not console.is_terminal:
        console.width = 10_000  # do not wrap lines in a file or a pipe
    console.print(findings_table(advise(run.path)))
    if not run.gradients.path.exists():
        note = (
            "\nnot checked: gates and the size of updates, which need lstm-optax train --diagnose"
        )
        console.print(Text(note))
