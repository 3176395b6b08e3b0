"""The tables of the studies in Markdown, from their records alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean, median
from typing import Any

from scipy.stats import binomtest

from lstm_optax.records import markdown_table, read_records

_Record = Mapping[str, Any]

_NAMES = {
    "adding": "Adding",
    "temporal_order": "Temporal order",
    "forget_bias_0": "forget bias 0",
    "forget_bias_1": "forget bias 1",
    "chrono": "chrono",
    "sgd": "SGD",
    "graves": "Graves' RMSprop",
    "nadam": "Nadam",
}
_AT_EDGE, _UNSOLVED = "\\*", "†"


def study_table(records: Sequence[_Record]) -> str:
    """Return the tables of a study in Markdown, as shown in the docs.

    Args:
      records: the records of one study, `long_memory` or `averaging_study`, one per cell.

    Raises:
      ValueError: there are no records, or they belong to several studies or to a study without a
        table, or the study has not run far enough.
    """
    studies = sorted({record["study"] for record in records})
    if len(studies) != 1 or studies[0] not in _TABLES:
        raise ValueError(
            f"got records of {', '.join(studies) or 'no study'}; expected those of one of "
            f"{', '.join(_TABLES)}"
        )
    return _TABLES[studies[0]](records)


def read_study(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines.

    Raises:
      OSError: the file cannot be read.
      ValueError: a line holds no record.
    """
    records = []
    for number, record in enumerate(read_records(Path(path)), 1):
        if record is None:
            raise ValueError(f"line {number} is not a record")
        records.append(record)
    return records


def wilson_interval(
    successes: int, trials: int, confidence_level: float = 0.95
) -> tuple[float, float]:
    """Return Wilson's confidence interval of a probability from successes in trials.

    Reference: Wilson, 1927, doi:10.1080/01621459.1927.10502953.
    """
    interval = binomtest(successes, trials).proportion_ci(confidence_level, method="wilson")
    return float(interval.low), float(interval.high)


def _long_memory_tables(records: Sequence[_Record]) -> str:
    """Return one table for each task, with a row for each start and optimizer."""
    tables = []
    records = sorted(records, key=_table_position)
    for task in dict.fromkeys(record["cell"]["task"] for record in records):
        chosen = [record for record in records if record["cell"]["task"] == task]
        head = ["start", "optimizer", "rate", "solved", "95 % interval", "at step", "median score"]
        rows, first = [_success_row(record) for record in chosen], chosen[0]
        caption = (
            f"{_NAMES[task]}: the baseline has a score of {first['baseline']:.4f}; a score below "
            f"{first['solved_below']:.4f} counts as solved."
        )
        tables.append(f"{caption}\n\n{markdown_table(head, rows)}")
    if any(record["on_edge"] for record in records):
        tables.append(
            f"{_AT_EDGE} The best rate is at the edge of the tried rates, so it is not tuned."
        )
    if any(not _is_tuned(record) for record in records):
        tables.append(
            f"{_UNSOLVED} No rate solved the task with a tuning seed, so the choice of the rate "
            "means little."
        )
    return "\n\n".join(tables)


def _success_row(record: _Record) -> list[str]:
    trials = record["trials"]
    at = [trial["solved_at"] for trial in trials if trial["solved"]]
    low, high = wilson_interval(len(at), len(trials))
    score = median(math.inf if trial["score"] is None else trial["score"] for trial in trials)
    return [
        _NAMES[record["cell"]["start"]],
        _NAMES[record["cell"]["optimizer"]],
        f"{record['rate']:g}{_footnote_marks(record)}",
        f"{len(at)} of {len(trials)}",
        f"{low:.2f}–{high:.2f}",
        f"{median(at):,.0f} ({min(at):,}–{max(at):,})" if at else "–",
        _format_loss(score if math.isfinite(score) else None),
    ]


def _footnote_marks(record: _Record) -> str:
    return (_AT_EDGE if record["on_edge"] else "") + ("" if _is_tuned(record) else _UNSOLVED)


def _is_tuned(record: _Record) -> bool:
    return any(trial["solved"] for trial in record["tuning"])


def _averaging_tables(records: Sequence[_Record]) -> str:
    """Return a table of the seeds, a sentence about it, and a table of the tried rates."""
    parts = {(r["cell"]["course"], r["cell"]["part"]): r for r in records}
    if not parts.keys() >= {("constant", "tuning"), ("constant", "seeds")}:
        raise ValueError("the trials at a constant rate are missing: run the study to its end")
    iterate = parts["constant", "seeds"]  # at the best rate of the last iterate
    average = parts.get(("constant", "seeds_averaged"), iterate)  # at the best rate of the average
    cosine = parts.get(("cosine", "seeds"))
    columns = {
        f"rate {average['rate']:g}, averaged": _final_losses(average, "averaged"),
        "last iterate of the same run": _final_losses(average, "last"),
        f"rate {iterate['rate']:g}, last iterate": _final_losses(iterate, "last"),
        "averaged, same run": _final_losses(iterate, "averaged"),
    }
    if average is iterate:
        columns = dict(list(columns.items())[:2])
    if cosine:
        columns[f"cosine, rate {cosine['rate']:g}, last iterate"] = _final_losses(cosine, "last")
    rows = [
        [str(trial["seed"]), _format_trigger(trial), *map(_format_loss, losses)]
        for trial, *losses in zip(average["trials"], *columns.values(), strict=True)
    ]
    rows.append(["mean", "", *(_format_loss(_mean(column)) for column in columns.values())])
    table = markdown_table(["seed", "averaged from step", *columns], rows)
    sentences = _compare_average(average, iterate, cosine)
    return f"{table}\n\n{sentences}\n\n{_tried_rates_table(parts)}"


def _compare_average(average: _Record, iterate: _Record, cosine: _Record | None) -> str:
    """Return in how many seeds the average is better, and how often the trigger fired."""
    others = {"the last iterate of the same run": average}
    if average is not iterate:
        others[f"the last iterate at rate {iterate['rate']:g}"] = iterate
    if cosine:
        others["the last iterate under the cosine schedule"] = cosine
    averaged, seeds = _final_losses(average, "averaged"), len(average["trials"])
    counts = [
        f"{name} in {_count_lower(averaged, _final_losses(other, 'last'))} of {seeds} seeds"
        for name, other in others.items()
    ]
    fired = sum(trial["averaging_from"] is not None for trial in iterate["trials"])
    return (
        f"At rate {average['rate']:g} the average is better than {' and than '.join(counts)}. "
        f"At rate {iterate['rate']:g} the trigger fired in {fired} of {seeds} seeds."
    )


def _tried_rates_table(parts: Mapping[tuple[str, str], _Record]) -> str:
    """Return the final losses at the tried rates, and the best rates at the edge of them."""
    tuning = {course: parts[course, "tuning"] for course, part in parts if part == "tuning"}
    compared = [("constant", "averaged"), *((course, "last") for course in tuning)]
    kinds = {"averaged": "averaged", "last": "last iterate"}
    ends = {
        f"{course}, {kinds[key]}": {
            trial["rate"]: trial[key][-1] for trial in tuning[course]["trials"]
        }
        for course, key in compared
    }
    rates = sorted({rate for losses in ends.values() for rate in losses})
    rows = [
        [f"{rate:g}", *(_format_loss(x[rate]) if rate in x else "–" for x in ends.values())]
        for rate in rates
    ]
    at_edge = [
        name
        for name, losses in ends.items()
        if min(losses, key=lambda rate: _or_infinity(losses[rate])) in (min(losses), max(losses))
    ]
    table = markdown_table(["tried rate", *ends], rows)
    if not at_edge:
        return table
    names = "; ".join(at_edge)
    return (
        f"{table}\n\nThe best rate is at the edge of the tried rates, so it is not tuned: {names}."
    )


def _final_losses(record: _Record, key: str) -> list[float | None]:
    return [trial[key][-1] for trial in record["trials"]]


def _mean(losses: Sequence[float | None]) -> float | None:
    finite = [loss for loss in losses if loss is not None]
    return fmean(finite) if len(finite) == len(losses) else None


def _count_lower(losses: Sequence[float | None], others: Sequence[float | None]) -> int:
    return sum(_or_infinity(a) < _or_infinity(b) for a, b in zip(losses, others, strict=True))


def _or_infinity(loss: float | None) -> float:
    return math.inf if loss is None else loss


def _format_trigger(trial: _Record) -> str:
    return "never" if trial["averaging_from"] is None else f"{trial['averaging_from']:,}"


def _format_loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


def _table_position(record: _Record) -> list[int]:
    """Return the position of a record: by task, start and optimizer."""
    names = list(_NAMES)
    return [names.index(record["cell"][part]) for part in ("task", "start", "optimizer")]


_TABLES = {"long_memory": _long_memory_tables, "averaging_study": _averaging_tables}
