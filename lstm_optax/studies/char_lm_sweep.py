"""A comparison of the average of NT-ASGD with the last iterate of SGD, on a character model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from lstm_optax.records import Record
from lstm_optax.runs.constraints import Count, CountOrZero, Positive, check_fields
from lstm_optax.runs.corpus import load_corpus
from lstm_optax.studies.char_lm_trainer import CharLMTrainer, Course
from lstm_optax.studies.study import (
    OnLine,
    RecordFile,
    check_multiple,
    rate_past_edge,
    run_command,
)

STUDY = "averaging_study"
RATES = (3.0, 10.0, 30.0)
CELLS: tuple[tuple[Course, str], ...] = (
    ("constant", "tuning"),
    ("constant", "seeds_averaged"),  # at the best rate of the average
    ("constant", "seeds"),  # at the best rate of the last iterate
    ("cosine", "tuning"),
    ("cosine", "seeds"),
)


@dataclass(frozen=True)
class AveragingStudyConfig:
    """Train a character model by SGD, and compare the average of NT-ASGD with the last iterate.

    The average does not replace the trained parameters, so one trial yields both, and its last
    iterate is that of plain SGD with the same clip. At a constant rate, the seeds run at the best
    rate of the last iterate and at the best rate of the average. A cosine schedule runs at the best
    rate of its last iterate. The best rate has the lowest validation loss after the last step, on a
    separate seed. Cells with a record in the file are not run again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/records/averaging_study.jsonl")
    """File of the records, JSON lines."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the sizes below by very small ones, to try the study in seconds."""

    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """UTF-8 text file to train on; by default the help topics of Python."""

    embedding: Count = 64
    """Embedding features, at least 1."""

    hidden: Count = 128
    """Hidden units, at least 1."""

    batch: Count = 16
    """Batch size, at least 1."""

    window: Count = 64
    """Characters of each row in a training step, at least 1."""

    steps: Count = 3000
    """Training steps, a multiple of --eval-every."""

    eval_every: Count = 100
    """Training steps between validations, at least 1."""

    clip: Positive = 0.25
    """Largest norm of the gradient, above 0."""

    nonmonotone: Count = 5
    """Validations without improvement before the average starts, at least 1."""

    seeds: Count = 3
    """Number of reported seeds, at least 1: 0, 1, …; seed 1000 tunes the rate."""

    extensions: CountOrZero = 2
    """Largest number of rates to try past the edge of the grid, 0 or more."""

    def check(self) -> None:
        """Raise OptionError for the first invalid value."""
        check_fields(self)
        check_multiple(self.steps, "eval_every", self.eval_every)


QUICK_SIZES = dict(embedding=4, hidden=8, batch=64, window=32, steps=8, eval_every=1, extensions=0)


def run(
    config: AveragingStudyConfig,
    command: str = "",
    on_cell: OnLine = lambda line: None,
    on_progress: OnLine = lambda line: None,
) -> list[Record]:
    """Run the cells without a record in the file, and return the records of all cells.

    Args:
      config: the options.
      command: the command, for the records.
      on_cell: called with a line of text after each cell.
      on_progress: called with a line of text about the progress.

    Raises:
      OptionError: an invalid option, or a file of other records.
      TextError: the text cannot be read or is too short.
    """
    config = replace(config, **QUICK_SIZES, nonmonotone=2) if config.quick else config
    config.check()
    corpus = load_corpus(config.text, config.batch, config.window)
    settings = {n: v for n, v in asdict(config).items() if n not in ("out", "quick", "text")}
    settings |= {"rates": RATES, "text": corpus.name, "sha256": corpus.sha256}
    settings["drawn_first"] = "layer"  # records without it drew the embedding first
    file = RecordFile(config.out, STUDY, settings, command)
    trainer = CharLMTrainer(corpus, config)
    records, tuning = [], {}
    for course, part in CELLS:
        cell: Record = {"course": course, "part": part}
        name = f"{course}, {part}"
        rate = _best_rate(tuning[course], _RANKED[part]) if course in tuning else None
        if part == "seeds_averaged" and rate == tuning[course]["rate"]:
            continue  # the next cell runs the same trials
        record = file.find(cell)
        if record is None:

            def on_line(line: str, name: str = name) -> None:
                on_progress(f"{name}: {line}")

            result = (
                _tune_rate(trainer, course, config, on_line)
                if rate is None
                else _run_seeds(trainer, course, rate, config, on_line)
            )
            record = file.add(cell, result)
            on_cell(f"{name}: {describe(record)}")
        tuning.setdefault(course, record)
        records.append(record)
    return records


def describe(record: Record) -> str:
    """Return the result of a cell in a line of text."""
    edge = " (at the edge of the grid)" if record.get("on_edge") else ""
    ends = [
        f"{trial['rate']:g}/{trial['seed']}: {_format_nats(trial['last'][-1])}, "
        f"averaged {_format_nats(trial['averaged'][-1])}"
        for trial in record["trials"]
    ]
    return f"rate {record['rate']:g}{edge}; {'; '.join(ends)}"


def _format_nats(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


_RANKED = {"seeds": "last", "seeds_averaged": "averaged"}


def _tune_rate(
    trainer: CharLMTrainer, course: Course, config: AveragingStudyConfig, on_progress: OnLine
) -> Record:
    """Try the grid, and extend it while a best rate is at its edge."""
    tried = trainer.train(course, [(rate, 1000) for rate in RATES], on_progress=on_progress)
    compared = ("last", "averaged") if course == "constant" else ("last",)
    for _ in range(config.extensions):
        rates = [trial["rate"] for trial in tried]
        further = [rate_past_edge(rates, _best_rate({"trials": tried}, key)) for key in compared]
        new = sorted({rate for rate in further if rate is not None})
        if not new:
            break
        tried += trainer.train(course, [(rate, 1000) for rate in new], on_progress=on_progress)
    best = _best_rate({"trials": tried}, "last")
    on_edge = rate_past_edge([trial["rate"] for trial in tried], best) is not None
    return {"rate": best, "on_edge": on_edge, "trials": tried}


def _best_rate(tuning: Record, key: str) -> float:
    """Return the rate with the lowest final loss of `key`, "last" or "averaged"."""

    def final_loss(trial: Record) -> float:
        loss = trial[key][-1]
        return float("inf") if loss is None else loss

    return min(tuning["trials"], key=final_loss)["rate"]


def _run_seeds(
    trainer: CharLMTrainer,
    course: Course,
    rate: float,
    config: AveragingStudyConfig,
    on_progress: OnLine,
) -> Record:
    pairs = [(rate, seed) for seed in range(config.seeds)]
    return {"rate": rate, "trials": trainer.train(course, pairs, on_progress=on_progress)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from its command line, and return the exit status."""
    return run_command(AveragingStudyConfig, run, "lstm_optax.studies.char_lm_sweep", argv)


if __name__ == "__main__":
    sys.exit(main())
