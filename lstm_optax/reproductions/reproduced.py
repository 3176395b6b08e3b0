"""What a reproduction found, next to what was published; from the records alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from scipy.stats import t

from lstm_optax.reproductions.plan import KIND
from lstm_optax.reproductions.published import Published, Reproduction, find_reproduction
from lstm_optax.studies.statistics import Estimate
from lstm_optax.studies.study_grid import NONE, StudyGrid, format_interval, format_number
from lstm_optax.studies.study_records import StudyError, StudyRecords

LEVEL = 0.95


@dataclass(frozen=True)
class Reproduced:
    """A number of ours next to a published one.

    Attributes:
      row: what it belongs to, such as the name of an optimizer.
      at: where it was measured, such as "epoch 1".
      ours: mean over the seeds, with the interval of the t distribution.
      published: the published number; None if there is no comparable one.
    """

    row: str
    at: str
    ours: Estimate
    published: Published | None

    @property
    def agrees(self) -> bool | None:
        """Whether our interval contains the published number, or keeps to the published bound.

        None without a published number or without an interval.
        """
        low, high = self.ours.low, self.ours.high
        if self.published is None or math.isnan(low):
            return None
        value, relation = self.published.value, self.published.relation
        if relation == "equal":
            return low <= value <= high
        return low > value if relation == "above" else high < value


def compare_with_published(study: StudyRecords) -> list[Reproduced]:
    """Return what a reproduction found, in the order of the published numbers.

    Published numbers that the records do not reach, such as those of later epochs, are left out.

    Raises:
      StudyError: records of another kind, or of a reproduction that is not known.
    """
    reproduction = _reproduction_of(study)
    module = import_module(f"lstm_optax.reproductions.{reproduction.module}")
    results: dict[tuple[str, str], Sequence[float]] = module.measure(study, reproduction)
    published = {(number.row, number.at): number for number in reproduction.published}
    order = [key for key in published if key in results]
    order += [key for key in results if key not in published]
    return [Reproduced(*key, t_interval(results[key]), published.get(key)) for key in order]


def reproduced_grid(study: StudyRecords) -> StudyGrid:
    """Return a table of what a reproduction found, with the source as a note.

    Raises:
      StudyError: see `compare_with_published`.
    """
    reproduction = _reproduction_of(study)
    numbers = compare_with_published(study)
    header = ["", "at", f"ours, {100 * LEVEL:g} %", "published", "difference", "agrees"]
    notes = [f"{reproduction.metric}. Published: {reproduction.source}."]
    counts = sorted({len(number.ours.values) for number in numbers})
    seeds = " or ".join(map(str, counts)) or "no"
    notes.append(
        f"Means of {seeds} seeds with intervals of the t distribution. A published number agrees "
        "if it is in our interval, a published bound if the whole interval keeps to it."
    )
    return StudyGrid(header, [_cells(number) for number in numbers], notes)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Return the mean, and mean ± t · s/√n; NaN for the ends of one value or of infinite ones."""
    sample = np.asarray(values, float)
    mean = float(sample.mean())
    if len(sample) < 2 or not np.isfinite(sample).all():
        return Estimate(tuple(values), mean, math.nan, math.nan)
    half = t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
    return Estimate(tuple(values), mean, float(mean - half), float(mean + half))


def _reproduction_of(study: StudyRecords) -> Reproduction:
    kind = study.study["kind"]
    if kind != KIND:
        raise StudyError(f"these are records of a {kind}, not of a reproduction")
    return find_reproduction(study.study["settings"]["reproduction"])


def _cells(found: Reproduced) -> list[str]:
    ours, published = found.ours, found.published
    shown = format_interval(ours.mean, ours.low, ours.high)
    if published is None:
        return [found.row, found.at, shown, NONE, NONE, NONE]
    word = {"equal": "", "above": "above ", "below": "below "}[published.relation]
    number = f"{word}{format_number(published.value)}"
    difference = f"{ours.mean - published.value:+.3f}" if not word else NONE
    agrees = {True: "yes", False: "no", None: NONE}[found.agrees]
    return [found.row, found.at, shown, number, difference, agrees]
