"""The average of NT-ASGD against the last iterate of the same SGD, on the character model."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from lstm_optax.experiments.character_lanes import CharacterLanes, Course
from lstm_optax.experiments.language import load_corpus
from lstm_optax.experiments.options import OptionError
from lstm_optax.experiments.study import (
    Record,
    RecordFile,
    Tell,
    beyond,
    check_counts,
    run_command,
)

STUDY = "averaging_study"
RATES = (3.0, 10.0, 30.0)
Part = Literal["tuning", "seeds"]


@dataclass(frozen=True)
class AveragingStudyConfig:
    """Train a character model by SGD, and compare the average that NT-ASGD keeps with the iterate.

    The average replaces no parameter that trains, so one run gives both: the last iterate is plain
    SGD's, behind the same clip. The rate is the one whose last iterate has the lowest
    validation loss, on a seed of its own; so it is too for SGD under a cosine schedule, run beside
    it. Four records: tuning and seeds, for the constant rate and for the cosine.
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
        if self.extensions < 0:
            raise OptionError(f"--extensions is {self.extensions}, but must be 0 or more")
        if self.steps % self.eval_every:
            raise OptionError(
                f"--steps is {self.steps}, but must be a multiple of --eval-every {self.eval_every}"
            )


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
    records = []
    for course in get_args(Course):
        rate = None
        for part in get_args(Part):
            cell: Record = {"course": course, "part": part}
            record = file.find(cell)
            if record is None:
                name = f"{course}, {part}"

                def at(line: str, name: str = name) -> None:
                    progress(f"{name}: {line}")

                made = (
                    _tune(lanes, course, config, at)
                    if rate is None
                    else _run_seeds(lanes, course, rate, config, at)
                )
                record = file.add(cell, made)
                tell(f"{name}: {describe(record)}")
            rate = record["rate"]
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


def _tune(
    lanes: CharacterLanes, course: Course, config: AveragingStudyConfig, progress: Tell
) -> Record:
    """Try the grid, and rates past its edge while the best last iterate lies there."""
    tried = lanes.train(course, [(rate, 1000) for rate in RATES], tell=progress)
    for _ in range(config.extensions):
        further = beyond([lane["rate"] for lane in tried], _best(tried))
        if further is None:
            break
        tried += lanes.train(course, [(further, 1000)], tell=progress)
    best = _best(tried)
    on_edge = beyond([lane["rate"] for lane in tried], best) is not None
    return {"rate": best, "on_edge": on_edge, "lanes": tried}


def _best(lanes: Sequence[Record]) -> float:
    def last(lane: Record) -> float:
        loss = lane["last"][-1]
        return float("inf") if loss is None else loss

    return min(lanes, key=last)["rate"]


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
    return run_command(AveragingStudyConfig, run, f"lstm_optax.experiments.{STUDY}", argv)


if __name__ == "__main__":
    sys.exit(main())
