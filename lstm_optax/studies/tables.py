"""The tables of the studies, in Markdown, made of their records and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean, median
from typing import Any

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
_EDGE, _NONE = "\\*", "†"


def study_table(records: Sequence[_Record]) -> str:
    """Return the tables of a study in Markdown, as the page on evidence shows them.

    Args:
      records: of one study, `long_memory` or `averaging_study`, one for each cell.

    Raises:
      ValueError: there is no record, or they are of several studies, of one without a table,
        or of one that has hardly begun.
    """
    studies = sorted({record["study"] for record in records})
    if len(studies) != 1 or studies[0] not in _TABLES:
        raise ValueError(
            f"the records are of {', '.join(studies) or 'no study'}; expected those of one of "
            f"{', '.join(_TABLES)}"
        )
    return _TABLES[studies[0]](records)


def read_study(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a probability from successes in trials; 95 % at the default z.

        (k + z²/2 ∓ z √(k (n − k)/n + z²/4)) / (n + z²)

    Reference: Wilson, 1927, doi:10.1080/01621459.1927.10502953.
    """
    k, n = successes, trials
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    middle = k + z * z / 2
    return max((middle - half) / (n + z * z), 0.0), min((middle + half) / (n + z * z), 1.0)


def _long_memory(records: Sequence[_Record]) -> str:
    """One table for each task: a row for each start and optimizer."""
    tables = []
    records = sorted(records, key=_order)
    for task in dict.fromkeys(record["cell"]["task"] for record in records):
        mine = [record for record in records if record["cell"]["task"] == task]
        head = ["start", "optimizer", "rate", "solved", "95 % interval", "at step", "median score"]
        rows, first = [_success_row(record) for record in mine], mine[0]
        caption = (
            f"{_name(task)}: a score of {first['baseline']:.4f} knows nothing, one below "
            f"{first['solved_below']:.4f} is solved."
        )
        tables.append(f"{caption}\n\n{_markdown(head, rows)}")
    if any(record["on_edge"] for record in records):
        tables.append(f"{_EDGE} The best rate lies on the edge of those tried: not tuned.")
    if any(not _tuned(record) for record in records):
        tables.append(
            f"{_NONE} No rate solved the task with a tuning seed: its choice means little."
        )
    return "\n\n".join(tables)


def _success_row(record: _Record) -> list[str]:
    lanes = record["lanes"]
    at = [lane["solved_at"] for lane in lanes if lane["solved"]]
    low, high = wilson_interval(len(at), len(lanes))
    score = median(math.inf if lane["score"] is None else lane["score"] for lane in lanes)
    return [
        _name(record["cell"]["start"]),
        _name(record["cell"]["optimizer"]),
        f"{record['rate']:g}{_mark(record)}",
        f"{len(at)} of {len(lanes)}",
        f"{low:.2f}–{high:.2f}",
        f"{median(at):,.0f} ({min(at):,}–{max(at):,})" if at else "–",
        _number(score if math.isfinite(score) else None),
    ]


def _mark(record: _Record) -> str:
    return (_EDGE if record["on_edge"] else "") + ("" if _tuned(record) else _NONE)


def _tuned(record: _Record) -> bool:
    return any(lane["solved"] for lane in record["tuning"])


def _averaging_study(records: Sequence[_Record]) -> str:
    """A table of the seeds, what they say, and a table of the rates that were tried."""
    parts = {(r["cell"]["course"], r["cell"]["part"]): r for r in records}
    if not parts.keys() >= {("constant", "tuning"), ("constant", "seeds")}:
        raise ValueError("the runs at a constant rate are not done: run the study to its end")
    iterate = parts["constant", "seeds"]  # at the best rate of the last iterate
    average = parts.get(("constant", "seeds_averaged"), iterate)  # at that of the average
    cosine = parts.get(("cosine", "seeds"))
    columns = {
        f"rate {average['rate']:g}, averaged": _ends(average, "averaged"),
        "last iterate of the same run": _ends(average, "last"),
        f"rate {iterate['rate']:g}, last iterate": _ends(iterate, "last"),
        "averaged, same run": _ends(iterate, "averaged"),
    }
    if average is iterate:
        columns = dict(list(columns.items())[:2])
    if cosine:
        columns[f"cosine, rate {cosine['rate']:g}, last iterate"] = _ends(cosine, "last")
    seeds = [str(lane["seed"]) for lane in average["lanes"]]
    rows = [
        [seed, _step(lane), *map(_number, losses)]
        for seed, lane, *losses in zip(seeds, average["lanes"], *columns.values(), strict=True)
    ]
    rows.append(["mean", "", *(_number(_mean(column)) for column in columns.values())])
    said = [
        f"than the {name} in {_lower(_ends(average, 'averaged'), others)} of {len(seeds)}"
        for name, others in (
            ("last iterate of the same run", _ends(average, "last")),
            (f"last iterate at rate {iterate['rate']:g}", _ends(iterate, "last")),
            *([("last iterate under the cosine", _ends(cosine, "last"))] if cosine else []),
        )
        if not (average is iterate and "at rate" in name)
    ]
    sentence = (
        f"At rate {average['rate']:g} the average is better {' and '.join(said)} seeds. "
        f"At rate {iterate['rate']:g} the trigger fired in "
        f"{sum(lane['averaging_from'] is not None for lane in iterate['lanes'])} of {len(seeds)}."
    )
    table = _markdown(["seed", "averaged from step", *columns], rows)
    return f"{table}\n\n{sentence}\n\n{_rates_tried(parts)}"


def _rates_tried(parts: Mapping[tuple[str, str], _Record]) -> str:
    """The losses at the rates that were tried, and which best one lies on their edge."""
    tuning = {course: parts[course, "tuning"] for course, part in parts if part == "tuning"}
    compared = [("constant", "averaged"), *((course, "last") for course in tuning)]
    kinds = {"averaged": "averaged", "last": "last iterate"}
    ends = {
        f"{course}, {kinds[which]}": {
            lane["rate"]: lane[which][-1] for lane in tuning[course]["lanes"]
        }
        for course, which in compared
    }
    rates = sorted({rate for losses in ends.values() for rate in losses})
    rows = [
        [f"{rate:g}", *(_number(x[rate]) if rate in x else "–" for x in ends.values())]
        for rate in rates
    ]
    edges = [
        name
        for name, losses in ends.items()
        if min(losses, key=lambda rate: _rank(losses[rate])) in (min(losses), max(losses))
    ]
    note = f"\n\nOn the edge of those tried, so not tuned: {'; '.join(edges)}." if edges else ""
    return _markdown(["rate tried", *ends], rows) + note


def _ends(record: _Record, which: str) -> list[float | None]:
    return [lane[which][-1] for lane in record["lanes"]]


def _mean(losses: Sequence[float | None]) -> float | None:
    finite = [loss for loss in losses if loss is not None]
    return fmean(finite) if len(finite) == len(losses) else None


def _lower(losses: Sequence[float | None], others: Sequence[float | None]) -> int:
    return sum(_rank(a) < _rank(b) for a, b in zip(losses, others, strict=True))


def _rank(loss: float | None) -> float:
    return math.inf if loss is None else loss


def _step(lane: _Record) -> str:
    return "never" if lane["averaging_from"] is None else f"{lane['averaging_from']:,}"


def _number(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


def _order(record: _Record) -> list[int]:
    """Return the place of a cell's record: by task, start and optimizer."""
    names = list(_NAMES)
    return [names.index(record["cell"][part]) for part in ("task", "start", "optimizer")]


def _name(value: str) -> str:
    return _NAMES[value]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_TABLES = {"long_memory": _long_memory, "averaging_study": _averaging_study}
