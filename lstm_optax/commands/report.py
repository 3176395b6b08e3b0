"""The command `lstm-optax report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from lstm_optax.runs.constraints import OptionError


@dataclass(frozen=True)
class Report:
    """Write the report of a sweep or a comparison: a page, its plots, and its table.

    report.html opens from disk in any browser and needs no network. The plots are in plots/, as
    .png and .svg, and the table is in table.md.
    """

    folder: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR", help_behavior_hint="(required)")
    ]
    """Folder of a sweep or a comparison."""

    tensorboard: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Export scalars and hyper-parameters of all trials for TensorBoard to this new folder."""

    def run(self, console: Console) -> int:
        """Write the files and print where they are; return the exit status."""
        from lstm_optax.studies.study_records import read_study

        read_study(self.folder)  # raises the errors that need no JAX

        from lstm_optax.report import export_tensorboard, write_report

        try:
            if self.tensorboard is not None:
                count = export_tensorboard(self.folder, self.tensorboard)
                line = f"exported {count} trials to {self.tensorboard}"
                console.print(Text(line), soft_wrap=True)
            with console.status("writing the report"):
                page = write_report(self.folder)
        except OSError as error:
            place, why = error.filename or self.folder, error.strerror or error
            raise OptionError(f"{place} cannot be written: {why}; check the folder") from error
        console.print(Text(f"saved {page}"), soft_wrap=True)
        return 0
