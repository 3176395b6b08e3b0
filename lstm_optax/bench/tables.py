"""The tables of a benchmark as grids of text: ratios of each row, their means, all details."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any, NamedTuple

from lstm_optax.bench.config import LOWER_BOUND, OURS

MEASURE_TITLES = {
    "step": "one step per dispatch",
    "steps": "{steps} steps per dispatch",
    "used": "{steps} steps as each is used: ours in one dispatch, the others one per call",
}
"""The measures in which contenders are compared."""

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
    facts: Mapping[str, Any]  # record "row": kind, shape, …
    run: Mapping[str, Any]  # record "run": the machine, the versions, …
    results: Mapping[tuple[str, str], Mapping[str, Any]]  # by measure and contender

    def ratio(self, measure: str, contender: str) -> list[float] | None:
        """Return the quartiles of a contender's time divided by ours, within each round."""
        return self.results.get((measure, contender), {}).get("ratio")

    def contenders(self) -> list[str]:
        """Return the contenders in order, ours first, the lower bound last."""
        return list(dict.fromkeys(contender for _, contender in self.results))


def bench_rows(records: Records, platform: str = "cpu") -> list[BenchRow]:
    """Return the newest run of each row on a platform, an unfinished run only if there is no other.

    Args:
      records: records from `read_bench`.
      platform: "cpu" or "gpu", JAX's name of it.
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
    """Return the geometric mean over the rows of each contender's time divided by ours.

    The keys are (kind of row, measure, contender).
    """
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for row in bench_rows(records, platform):
        for measure, contender in row.results:
            ratio = row.ratio(measure, contender)
            if ratio and measure in MEASURE_TITLES and contender not in (OURS, LOWER_BOUND):
                key = (row.facts["kind"], measure, contender)
                ratios.setdefault(key, []).append(ratio[1])
    return {key: geometric_mean(values) for key, values in ratios.items()}


def summary_grids(records: Records, platform: str = "cpu") -> list[Grid]:
    """Return a table for each kind of row and measure: our time, and the other times over ours."""
    rows, means = bench_rows(records, platform), bench_means(records, platform)
    grids = []
    for kind in ("layer", "train", "optimizer"):
        for measure, title in MEASURE_TITLES.items():
            measured = [
                row
                for row in rows
                if row.facts["kind"] == kind and row.ratio(measure, OURS) is not None
            ]
            if measured:
                steps = measured[0].run["steps"]
                heading = f"{_KIND_TITLES[kind]}, {title.format(steps=steps)}"
                grids.append(_summary_grid(heading, kind, measure, measured, means))
    return grids


def row_grids(records: Records, platform: str = "cpu") -> list[Grid]:
    """Return a table for each row: everything that was measured."""
    return [_row_grid(row) for row in bench_rows(records, platform)]


def unserved(rows: Iterable[BenchRow]) -> dict[str, list[str]]:
    """Return the reasons for missing numbers, each with the contenders and rows it applies to."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for contender in row.contenders():
            for measure in MEASURE_TITLES:
                status = row.results.get((measure, contender), {}).get("status", "measured")
                if status != "measured":
                    place = contender if status == "not installed" else f"{contender} in {row.name}"
                    reasons.setdefault(status, [])
                    if place not in reasons[status]:
                        reasons[status].append(place)
    return reasons


_KIND_TITLES = {
    "layer": "LSTM layer, forward and backward",
    "train": "Whole train step",
    "optimizer": "Update of the parameters",
}


def _summary_grid(
    title: str, kind: str, measure: str, rows: Sequence[BenchRow], means: Mapping
) -> Grid:
    names = list(dict.fromkeys(name for row in rows for name in row.contenders()))
    others = [name for name in names if name not in (OURS, LOWER_BOUND)]
    has_products = kind == "layer"
    header = ["row", "shape", "ours, ms", *["GFLOP/s"] * has_products, "lower bound ÷ time"]
    lines = []
    for row in rows:
        ours = row.results[measure, OURS]
        cells = [row.name, row.facts["shape"], _format_ms(ours)]
        if has_products:
            cells.append(_format_number(_products(row.facts) / ours["seconds"][1], 1e-9))
        cells.append(_format_share(ours))
        lines.append(cells + [_format_ratio(row.results.get((measure, name))) for name in others])
    mean = [means.get((kind, measure, name)) for name in others]
    if len(rows) > 1:
        cells = [f"{m:.2f}" if m else NONE for m in mean]
        lines.append(["geometric mean", *[""] * (len(header) - 1), *cells])
    return Grid(title, [*header, *others], lines)


def _products(facts: Mapping[str, Any]) -> int:
    """Return the multiplications and additions in the products of a layer, forward and backward.

    The backward pass has twice as many as the forward pass: those of the inputs and of the weights.
    """
    total, features = 0, facts["features"]
    for hidden in facts["hidden"]:
        total += 6 * facts["time"] * facts["batch"] * 4 * hidden * (features + hidden)
        features = hidden
    return total


def _row_grid(row: BenchRow) -> Grid:
    measures = [m for m in MEASURE_TITLES if (m, OURS) in row.results]
    header = ["contender"]
    for measure in measures:
        steps = row.results[measure, OURS].get("steps", 1)
        each = "one step" if measure == "step" else f"{steps} {measure}, each"
        header += [f"{each}, ms", "spread", "× ours", "lower bound ÷ time"]
    double, forward = (m in {measure for measure, _ in row.results} for m in ("double", "forward"))
    header += ["µs per time step"] * double + ["forward, ms"] * forward
    header += ["compile, s", "temporary, MB", "unroll"]
    lines = []
    for name in row.contenders():
        cells = [name]
        for measure in measures:
            result = row.results.get((measure, name), {})
            cells += [
                _format_ms(result),
                _format_spread(result),
                _format_ratio(result),
                _format_share(result),
            ]
        first = row.results.get((measures[0], name), {}) if measures else {}
        cells += [_format_slope(row, name)] * double
        cells += [_format_ms(row.results.get(("forward", name), {}))] * forward
        cells += [
            _format_number(first.get("compile_seconds")),
            _format_number(first.get("temp_bytes"), 1e-6),
        ]
        lines.append([*cells, str(first.get("unroll", NONE))])
    return Grid(f"{row.name}: {row.facts['about']}, {row.facts['shape']}", header, lines)


def _format_ms(result: Mapping[str, Any]) -> str:
    return _format_number(result["seconds"][1], 1e3) if "seconds" in result else NONE


def _format_spread(result: Mapping[str, Any]) -> str:
    if "seconds" not in result:
        return NONE
    low, _, high = result["seconds"]
    return f"{_format_number(low, 1e3)}–{_format_number(high, 1e3)}"


def _format_ratio(result: Mapping[str, Any] | None) -> str:
    if not result:
        return NONE
    if "ratio" not in result:
        return "not installed" if result["status"] == "not installed" else "cannot"
    low, median, high = result["ratio"]
    return f"{median:.2f} ({low:.2f}–{high:.2f})" if result["contender"] != OURS else "1"


def _format_share(result: Mapping[str, Any]) -> str:
    """Return the lower bound divided by the time, in percent."""
    if "lower_bound" not in result or result["contender"] == LOWER_BOUND:
        return NONE
    return f"{100 * result['lower_bound'][1]:.0f} %"


def _format_slope(row: BenchRow, name: str) -> str:
    """Return the microseconds per time step, from the difference of `double` and `step`."""
    once, twice = (row.results.get((m, name), {}).get("seconds") for m in ("step", "double"))
    if not once or not twice:
        return NONE
    return _format_number((twice[1] - once[1]) / row.facts["time"], 1e6)


def _format_number(value: float | None, scale: float = 1.0) -> str:
    """Return a number with three significant digits, without an exponent."""
    if value is None:
        return NONE
    value *= scale
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 3)}f}"
