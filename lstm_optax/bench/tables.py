"""What a benchmark found, as grids of text: ratios row by row, their means, the detail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

OURS, FLOOR = "lstm_optax", "floor"
MEASURES = {
    "step": "one step per dispatch",
    "steps": "{steps} steps per dispatch",
    "used": "{steps} steps as each is used: ours in one dispatch, the others one per call",
}
"""The measures in which contenders are compared, with their titles."""

NONE = "—"
Records = Sequence[Mapping[str, Any]]


class Grid(NamedTuple):
    """A table of text."""

    title: str
    header: list[str]
    lines: list[list[str]]


class BenchRow(NamedTuple):
    """The newest finished run of a row on a device."""

    name: str
    facts: Mapping[str, Any]  # of the row: kind, shape, …
    run: Mapping[str, Any]  # of the machine
    results: Mapping[tuple[str, str], Mapping[str, Any]]  # by measure and contender

    def ratio(self, measure: str, contender: str) -> list[float] | None:
        """Return quartiles of a contender's time over ours, within each round."""
        return self.results.get((measure, contender), {}).get("ratio")

    def contenders(self) -> list[str]:
        """Return the contenders in their order, ours first, the floor last."""
        return list(dict.fromkeys(contender for _, contender in self.results))


def bench_rows(records: Records, platform: str = "cpu") -> list[BenchRow]:
    """Return each row's newest run on a platform; a run that ended the row before one that did not.

    Args:
      records: as `read_bench` gives them.
      platform: "cpu" or "gpu", as JAX calls it.
    """
    runs = {r["run"]: r for r in records if r["record"] == "run" and r["platform"] == platform}
    ended = {(r["run"], r["row"]) for r in records if r["record"] == "end"}
    chosen: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record["record"] == "row" and record["run"] in runs:
            name, key = record["row"], (record["run"], record["row"])
            old = chosen.get(name)
            if old is None or key in ended or (old["run"], name) not in ended:
                chosen[name] = record
    return [
        BenchRow(
            name,
            facts,
            runs[facts["run"]],
            {
                (r["measure"], r["contender"]): r
                for r in records
                if r["record"] == "result" and r["run"] == facts["run"] and r["row"] == name
            },
        )
        for name, facts in chosen.items()
    ]


def bench_means(records: Records, platform: str = "cpu") -> dict[tuple[str, str, str], float]:
    """Return the geometric means over the rows of each contender's time over ours.

    The keys are (kind of row, measure, contender).
    """
    logs: dict[tuple[str, str, str], list[float]] = {}
    for row in bench_rows(records, platform):
        for measure, contender in row.results:
            ratio = row.ratio(measure, contender)
            if ratio and measure in MEASURES and contender not in (OURS, FLOOR):
                key = (row.facts["kind"], measure, contender)
                logs.setdefault(key, []).append(math.log(ratio[1]))
    return {key: math.exp(sum(values) / len(values)) for key, values in logs.items()}


def summary_grids(records: Records, platform: str = "cpu") -> list[Grid]:
    """Return for each kind of row and measure: our time, and the others' in units of it."""
    rows, means = bench_rows(records, platform), bench_means(records, platform)
    grids = []
    for kind in ("layer", "train", "optimizer"):
        for measure, title in MEASURES.items():
            there = [
                row
                for row in rows
                if row.facts["kind"] == kind and row.ratio(measure, OURS) is not None
            ]
            if there:
                steps = there[0].run["steps"]
                heading = f"{_KINDS[kind]}, {title.format(steps=steps)}"
                grids.append(_summary(heading, kind, measure, there, means))
    return grids


def row_grids(records: Records, platform: str = "cpu") -> list[Grid]:
    """Return for each row all that was measured of each contender."""
    return [_detail(row) for row in bench_rows(records, platform)]


def unserved(rows: Iterable[BenchRow]) -> dict[str, list[str]]:
    """Return why contenders have no numbers: reason → where."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for contender in row.contenders():
            for measure in MEASURES:
                status = row.results.get((measure, contender), {}).get("status", "measured")
                if status != "measured":
                    place = contender if status == "not installed" else f"{contender} in {row.name}"
                    reasons.setdefault(status, [])
                    if place not in reasons[status]:
                        reasons[status].append(place)
    return reasons


_KINDS = {
    "layer": "LSTM layer, forward and backward",
    "train": "Whole train step",
    "optimizer": "Update of the parameters",
}


def _summary(title: str, kind: str, measure: str, rows: Sequence[BenchRow], means: Mapping) -> Grid:
    names = list(dict.fromkeys(name for row in rows for name in row.contenders()))
    others = [name for name in names if name not in (OURS, FLOOR)]
    lines = []
    for row in rows:
        ours = row.results[measure, OURS]
        cells = [row.name, row.facts["shape"], _ms(ours), _share(ours)]
        lines.append(cells + [_ratio(row.results.get((measure, name))) for name in others])
    mean = [means.get((kind, measure, name)) for name in others]
    if len(rows) > 1:
        cells = [f"{m:.2f}" if m else NONE for m in mean]
        lines.append(["geometric mean", "", "", "", *cells])
    return Grid(title, ["row", "shape", "ours, ms", "of the floor", *others], lines)


def _detail(row: BenchRow) -> Grid:
    measures = [m for m in MEASURES if (m, OURS) in row.results]
    header = ["contender"]
    for measure in measures:
        steps = row.results[measure, OURS].get("steps", 1)
        each = "one step" if measure == "step" else f"{steps} {measure}, each"
        header += [f"{each}, ms", "spread", "× ours", "of the floor"]
    double, forward = (m in {measure for measure, _ in row.results} for m in ("double", "forward"))
    header += ["µs per time step"] * double + ["forward, ms"] * forward
    header += ["compile, s", "temporary, MB", "unroll"]
    lines = []
    for name in row.contenders():
        cells = [name]
        for measure in measures:
            result = row.results.get((measure, name), {})
            cells += [_ms(result), _spread(result), _ratio(result), _share(result)]
        first = row.results.get((measures[0], name), {}) if measures else {}
        cells += [_slope(row, name)] * double
        cells += [_ms(row.results.get(("forward", name), {}))] * forward
        cells += [_number(first.get("compile_seconds")), _number(first.get("temp_bytes"), 1e-6)]
        lines.append([*cells, str(first.get("unroll", NONE))])
    return Grid(f"{row.name}: {row.facts['about']}, {row.facts['shape']}", header, lines)


def _ms(result: Mapping[str, Any]) -> str:
    return _number(result["seconds"][1], 1e3) if "seconds" in result else NONE


def _spread(result: Mapping[str, Any]) -> str:
    if "seconds" not in result:
        return NONE
    low, _, high = result["seconds"]
    return f"{_number(low, 1e3)}–{_number(high, 1e3)}"


def _ratio(result: Mapping[str, Any] | None) -> str:
    if not result:
        return NONE
    if "ratio" not in result:
        return "not installed" if result["status"] == "not installed" else "cannot"
    low, median, high = result["ratio"]
    return f"{median:.2f} ({low:.2f}–{high:.2f})" if result["contender"] != OURS else "1"


def _share(result: Mapping[str, Any]) -> str:
    if "floor" not in result or result["contender"] == FLOOR:
        return NONE
    return f"{100 * result['floor'][1]:.0f} %"


def _slope(row: BenchRow, name: str) -> str:
    """Microseconds that one more time step takes: from the sequence and the one twice as long."""
    once, twice = (row.results.get((m, name), {}).get("seconds") for m in ("step", "double"))
    if not once or not twice:
        return NONE
    return _number((twice[1] - once[1]) / row.facts["time"], 1e6)


def _number(value: float | None, scale: float = 1.0) -> str:
    """Return a number with three digits, and no exponent."""
    if value is None:
        return NONE
    value *= scale
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 3)}f}"
