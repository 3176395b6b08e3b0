"""The average of NT-ASGD against the last iterate of the same SGD, on the character model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from lstm_optax.runs.corpus import load_corpus
from lstm_optax.runs.options import OptionError
from lstm_optax.studies.char_lm_trainer import CharacterLanes, Course
from lstm_optax.studies.study import (
    Record,
    RecordFile,
    Tell,
    beyond,
    check_counts,
    check_steps,
    run_command,
)

STUDY = "averaging_study"
RATES = (3.0, 10.0, 30.0)
CELLS: tuple[tuple[Course, str], ...] = (
    ("constant", "tuning"),
    ("constant", "seeds_averaged"),  # at the rate that is best for the average
    ("constant", "seeds"),  # at the rate that is best for the last iterate
    ("cosine", "tuning"),
    ("cosine", "seeds"),
)


@dataclass(frozen=True)
class AveragingStudyConfig:
    """Train a character model by SGD, and compare the average that NT-ASGD keeps with the iterate.

    The average replaces no parameter that trains, so one run gives both: the last iterate is plain
    SGD's, behind the same clip. At a constant rate the seeds run at the rate that is best for
    the last iterate and at the one that is best for the average; beside them SGD under a cosine
    schedule, at the rate that is best for its last iterate. Best is the lowest validation
    loss after the last step, on a seed of its own. Records that the file holds are not made again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/records/averaging_study.jsonl")
    """The file of records, JSON lines."""

    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sizes so small that all of it takes seconds, in place of those below: to see it run."""

    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """UTF-8 text file to learn; by default the help topics that ship with Python."""

    embedding: int = 64
    """Size of a character's vector, at least 1."""

    hidden: int = 128
    """Hidden units, at least 1."""

    batch: int = 16
    """Rows of text read side by side, at least 1."""

    window: int = 64
    """Characters of each row in one step, at least 1."""

    steps: int = 3000
    """Training steps, a multiple of --eval-every."""

    eval_every: int = 100
    """Training steps from one validation to the next, at least 1."""

    clip: float = 0.25
    """Largest norm of the gradient, above 0."""

    nonmonotone: int = 5
    """How many validations may be no better than one before them, at least 1."""

    seeds: int = 3
    """Seeds that are reported, at least 1: 0, 1, …; for the choice of the rate 1000."""

    extensions: int = 2
    """How many rates past the edge of the grid may be tried, 0 or more."""

    def check(self) -> None:
        """Raise OptionError for the first value that cannot be."""
        sizes = ("embedding", "hidden", "batch", "window", "steps", "eval_every")
        check_counts(self, *sizes, "nonmonotone", "seeds")
        if not 0 < self.clip < float("inf"):
            raise OptionError(f"--clip is {self.clip}, but must be above 0 and finite")
        check_steps(self, "eval_every")


QUICK = dict(embedding=4, hidden=8, batch=64, window=32, steps=8, eval_every=1, extensions=0)


def run(
    config: AveragingStudyConfig,
    command: str = "",
    tell: Tell = lambda line: None,
    progress: Tell = lambda line: None,
) -> list[Record]:
    """Run the cells that the file lacks, and return the records of all.

    Args:
      config: what to run.
      command: what the records say that they were made by.
      tell: is told of each cell as it is done.
      progress: is told how far it is.

    Raises:
      OptionError, TextError: an option or a text that cannot be, or a file of other records.
    """
    config = replace(config, **QUICK, nonmonotone=2) if config.quick else config
    config.check()
    corpus = load_corpus(config.text, config.batch, config.window)
    settings = {n: v for n, v in asdict(config).items() if n not in ("out", "quick", "text")}
    settings |= {"rates": RATES, "text": corpus.name, "sha256": corpus.sha256}
    file = RecordFile(config.out, STUDY, settings, command)
    lanes = CharacterLanes(corpus, config)
    records, tuning = [], {}
    for course, part in CELLS:
        cell: Record = {"course": course, "part": part}
        name = f"{course}, {part}"
        rate = _best(tuning[course], _RANKED[part]) if course in tuning else None
        if part == "seeds_averaged" and rate == tuning[course]["rate"]:
            continue  # the runs of the next cell
        record = file.find(cell)
        if record is None:

            def at(line: str, name: str = name) -> None:
                progress(f"{name}: {line}")

            made = (
                _tune(lanes, course, config, at)
                if rate is None
                else _run_seeds(lanes, course, rate, config, at)
            )
            record = file.add(cell, made)
            tell(f"{name}: {describe(record)}")
        tuning.setdefault(course, record)
        records.append(record)
    return records


def describe(record: Record) -> str:
    """Return what came of a cell, in a line."""
    edge = " (on the edge of the grid)" if record.get("on_edge") else ""
    ends = [
        f"{lane['rate']:g}/{lane['seed']}: {_nats(lane['last'][-1])}, "
        f"averaged {_nats(lane['averaged'][-1])}"
        for lane in record["lanes"]
    ]
    return f"rate {record['rate']:g}{edge}; {'; '.join(ends)}"


def _nats(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


_RANKED = {"seeds": "last", "seeds_averaged": "averaged"}


def _tune(
    lanes: CharacterLanes, course: Course, config: AveragingStudyConfig, progress: Tell
) -> Record:
    """Try the grid, and rates past its edge while one that is best lies there."""
    tried = lanes.train(course, [(rate, 1000) for rate in RATES], tell=progress)
    compared = ("last", "averaged") if course == "constant" else ("last",)
    for _ in range(config.extensions):
        rates = [lane["rate"] for lane in tried]
        further = [beyond(rates, _best({"lanes": tried}, which)) for which in compared]
        past = sorted({rate for rate in further if rate is not None})
        if not past:
            break
        tried += lanes.train(course, [(rate, 1000) for rate in past], tell=progress)
    best = _best({"lanes": tried}, "last")
    on_edge = beyond([lane["rate"] for lane in tried], best) is not None
    return {"rate": best, "on_edge": on_edge, "lanes": tried}


def _best(tuning: Record, which: str) -> float:
    """Return the rate whose last iterate, or whose average, ended with the lowest loss."""

    def end(lane: Record) -> float:
        loss = lane[which][-1]
        return float("inf") if loss is None else loss

    return min(tuning["lanes"], key=end)["rate"]


def _run_seeds(
    lanes: CharacterLanes,
    course: Course,
    rate: float,
    config: AveragingStudyConfig,
    progress: Tell,
) -> Record:
    pairs = [(rate, seed) for seed in range(config.seeds)]
    return {"rate": rate, "lanes": lanes.train(course, pairs, tell=progress)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study from its command line; return the exit status."""
    return run_command(AveragingStudyConfig, run, "lstm_optax.studies.char_lm_sweep", argv)


if __name__ == "__main__":
    sys.exit(main())
