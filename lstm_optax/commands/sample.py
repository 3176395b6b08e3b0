"""The command `lstm-optax sample`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from lstm_optax.runs.options import SampleConfig
from lstm_optax.runs.run_folder import RunFolder, known_characters

Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Sample:
    """Generate text with a trained model."""

    config: tyro.conf.OmitArgPrefixes[SampleConfig] = field(default_factory=SampleConfig)

    run: Folder = None
    """Run folder; by default the newest run in runs/."""


def run_sample(command: Sample, errors: Console) -> int:
    """Write a sample to stdout and warnings to `errors`; return the exit status."""
    command.config.check()
    run = RunFolder(command.run) if command.run else RunFolder.newest()
    command.config.check(known_characters(run.read_config()[1]))
    sys.stdout.write(generate_text(run, command.config, errors) + "\n")
    return 0


def generate_text(run: RunFolder, config: SampleConfig, console: Console) -> str:
    """Return a sample of a run's model; print warnings to the console."""
    from lstm_optax.runs.sample import sample_text

    return sample_text(run.path, config, warn=lambda message: print_warning(console, message))


def print_warning(console: Console, message: str) -> None:
    """Print a warning, which is not wrapped in a file or a pipe."""
    line = f"[yellow]warning:[/] {escape(message)}"
    console.print(line, soft_wrap=not console.is_terminal)
