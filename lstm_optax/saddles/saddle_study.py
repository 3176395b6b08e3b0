"""The published study of saddles: `python -m lstm_optax.saddles.saddle_study`."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lstm_optax.optimizers import OPTIMIZERS
from lstm_optax.records import Record, provenance, read_records, record_line, write_atomically
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.saddles.descents import descent_path
from lstm_optax.saddles.escapes import saddle_markdown, saddle_table
from lstm_optax.studies.study_records import StudyError

RATE, NOISE, START = 0.01, 0.01, (0.8, 0.01)
SHOWN = {  # optimizers of the picture, and the steps of their paths
    "sgd": 250,
    "momentum_sgd": 80,
    "nesterov_sgd": 80,
    "rmsprop": 130,
    "adam": 130,
    "optax.lion": 110,
}
PRESETS = tuple(
    f"presets.{name}"
    for name in ("graves.rmsprop", "torch.RMSprop", "keras.RMSprop", "torch.NAdam", "keras.Nadam")
)
NEEDS_LSTM = "gate_muon"
MEASURED = (*(name for name in OPTIMIZERS if name != NEEDS_LSTM), *PRESETS)


@dataclass(frozen=True)
class SaddleStudy:
    """Measure how soon each optimizer leaves the saddle x² − y², and print the table."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/records/saddles.jsonl")
    """File of the records, JSON lines; it is written again as a whole."""

    picture: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/saddles.png")
    """File of the picture, PNG."""

    optimizers: tuple[str, ...] = MEASURED
    """Names as for `lstm-optax train --optimizer`, of optimizers that need no LSTM."""


def read_saddles(path: Path) -> list[Record]:
    """Return the records of a file of this study, as `saddle_table` returned them.

    Raises:
      StudyError: a line that is not a record, or no record of the study.
    """
    head, *records = read_records(path) or [None]
    if head is None or head.get("study") != "saddles" or None in records:
        raise StudyError(f"{path} holds no records of the study of saddles: run it again")
    return [record for record in records if record is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from its command line, and return the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    program = "python -m lstm_optax.saddles.saddle_study"
    given = tyro.cli(SaddleStudy, args=argv, prog=program)
    try:
        chosen = {name: find_factory(name) for name in given.optimizers}
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = {"learning_rate": RATE, "noise": NOISE}
    made_by = provenance(f"{program} {shlex.join(argv)}".strip())
    records = saddle_table(chosen, learning_rate=RATE, noise=NOISE)
    head = {"study": "saddles", "settings": settings, "made_by": made_by}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out, "".join(map(record_line, [head, *records])))
    _draw(records, given.picture)
    print(saddle_markdown(records))
    return 0


def _draw(records: list[Record], picture: Path) -> None:
    from lstm_optax.saddles.surface_plot import saddle_figure

    paths = {
        name: descent_path(OPTIMIZERS[name], learning_rate=RATE, start=START, steps=steps)
        for name, steps in SHOWN.items()
    }
    saddle_figure(paths, records, learning_rate=RATE, shown=tuple(SHOWN)).savefig(picture)


if __name__ == "__main__":
    sys.exit(main())
