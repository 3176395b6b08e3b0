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
_EDGE = "\\*"


def study_table(records: Sequence[_Record]) -> str:
    """Return the tables of a study in Markdown, as the page on evidence shows them.

    Args:
      records: of one study, `long_memory` or `averaging_study`, one for each cell.

    Raises:
      ValueError: there is no record, or they are of several studies, or of one without a table.
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
            f"{_name(task)}: a score of {first['know_nothing']:.4f} knows nothing, one below "
            f"{first['solved_below']:.4f} is solved."
        )
        tables.append(f"{caption}\n\n{_markdown(head, rows)}")
    if any(record["on_edge"] for record in records):
        tables.append(f"{_EDGE} The best rate lies on the edge of those tried: not tuned.")
    return "\n\n".join(tables)


def _success_row(record: _Record) -> list[str]:
    lanes = record["lanes"]
    at = [lane["solved_at"] for lane in lanes if lane["solved"]]
    low, high = wilson_interval(len(at), len(lanes))
    score = median(math.inf if lane["score"] is None else lane["score"] for lane in lanes)
    return [
        _name(record["cell"]["start"]),
        _name(record["cell"]["optimizer"]),
        f"{record['rate']:g}{_EDGE if record['on_edge'] else ''}",
        f"{len(at)} of {len(lanes)}",
        f"{low:.2f}–{high:.2f}",
        f"{median(at):,.0f} ({min(at):,}–{max(at):,})" if at else "–",
        _number(score if math.isfinite(score) else None),
    ]


def _averaging_study(records: Sequence[_Record]) -> str:
    """A table of the seeds, a sentence on them, and a table of the rates that were tried."""
    parts = {(r["cell"]["course"], r["cell"]["part"]): r for r in records}
    constant, cosine = (parts[course, "seeds"] for course in ("constant", "cosine"))
    head = [
        "seed",
        f"last iterate, rate {constant['rate']:g}",
        "averaged, same run",
        "difference",
        "averaged from step",
        f"cosine, rate {cosine['rate']:g}, last iterate",
    ]
    pairs = list(zip(constant["lanes"], cosine["lanes"], strict=True))
    ends = [(a["last"][-1], a["averaged"][-1], b["last"][-1]) for a, b in pairs]
    rows = [
        [str(a["seed"]), *_compared(*end), f"{_step(a)}", _number(end[2])]
        for (a, _), end in zip(pairs, ends, strict=True)
    ]
    if all(loss is not None for end in ends for loss in end):
        means = [fmean(column) for column in zip(*ends, strict=True)]
        rows.append(["mean", *_compared(*means), "", _number(means[2])])
    better = sum(_is_lower(end[1], end[0]) for end in ends)
    best = sum(_is_lower(end[1], end[2]) for end in ends)
    sentence = (
        f"The average is better than the last iterate of the same run in {better} of {len(ends)} "
        f"seeds, and better than the last iterate under the cosine in {best} of {len(ends)}."
    )
    return f"{_markdown(head, rows)}\n\n{sentence}\n\n{_rates_tried(parts)}"


def _rates_tried(parts: Mapping[tuple[str, str], _Record]) -> str:
    tried = {
        course: {lane["rate"]: lane for lane in parts[course, "tuning"]["lanes"]}
        for course in ("constant", "cosine")
    }
    rows = []
    for rate in sorted(tried["constant"].keys() | tried["cosine"].keys()):
        constant, cosine = tried["constant"].get(rate), tried["cosine"].get(rate)
        losses = [constant and constant["last"], constant and constant["averaged"]]
        losses.append(cosine and cosine["last"])
        rows.append([f"{rate:g}", *("–" if x is None else _number(x[-1]) for x in losses)])
    head = ["rate tried", "constant, last iterate", "constant, averaged", "cosine, last iterate"]
    edges = [course for course in tried if parts[course, "tuning"]["on_edge"]]
    note = f"\n\nOn the edge of those tried, so not tuned: {', '.join(edges)}." if edges else ""
    return _markdown(head, rows) + note


def _compared(last: float | None, averaged: float | None, *_: Any) -> list[str]:
    difference = "–"
    if last is not None and averaged is not None:
        difference = f"{averaged - last:+.4f}".replace("-", "−")
    return [_number(last), _number(averaged), difference]


def _is_lower(a: float | None, b: float | None) -> bool:
    return a is not None and (b is None or a < b)


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
