"""The bar chart of a benchmark: how many times as long as ours each contender takes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lstm_optax.report.bench_grids import FLOOR, MEASURES, OURS, BenchRow, Records, bench_rows

# Okabe and Ito's palette: told apart with any kind of colour vision.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def draw_bench(records: Records, path: str | PathLike[str], *, title: str = "") -> None:
    """Write `bench_figure` of the same records to `path`: a PNG 1500 pixels wide."""
    bench_figure(records, title=title).savefig(path, format="png", dpi=100)


def bench_figure(records: Records, *, title: str = "", platform: str = "cpu") -> Figure:
    """Bars of the time over ours, for each row and contender, one panel for each measure.

    Medians of the ratios within each round, with a line from quartile to quartile; right of the
    line at 1 ours is the faster one. The scale is logarithmic.

    Args:
      records: as `read_bench` gives them.
      title: the line above the picture.
      platform: "cpu" or "gpu".
    """
    rows = bench_rows(records, platform)
    measures = [m for m in MEASURES if any(_others(row, m) for row in rows)]
    names = list(dict.fromkeys(n for row in rows for m in measures for n in _others(row, m)))
    bars = max((sum(len(_others(r, m)) + 1 for r in rows) for m in measures), default=8)
    size = (15, max(4.0, 1.6 + 0.17 * bars))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, x=0.01, horizontalalignment="left")
    if not measures:
        figure.text(0.5, 0.5, "nothing measured", ha="center", fontsize=14)
        return figure
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        _draw(axes, measure, rows, names)
    handles = {
        h.get_label(): h for axes in panels for h in axes.containers if hasattr(h, "patches")
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=8, fontsize=11
    )
    return figure


def _others(row: BenchRow, measure: str) -> list[str]:
    """The contenders that were timed beside ours."""
    return [n for n in row.contenders() if n not in (OURS, FLOOR) and row.ratio(measure, n)]


def _draw(axes: Axes, measure: str, rows: Sequence[BenchRow], names: Sequence[str]) -> None:
    rows = [row for row in rows if _others(row, measure)]
    place, ticks = 0.0, []
    drawn: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in names}
    for row in rows:
        others = _others(row, measure)
        ticks.append(place + (len(others) - 1) / 2)
        for name in others:
            drawn[name].append((place, row.ratio(measure, name) or []))
            place += 1
        place += 1
    for color, (name, bars) in zip(_COLORS * 2, drawn.items(), strict=False):
        if bars:
            where, quartiles = np.array([b[0] for b in bars]), np.array([b[1] for b in bars])
            middle = quartiles[:, 1]
            spread = np.abs(quartiles[:, ::2] - middle[:, None]).T
            axes.barh(where, middle - 1, left=1, height=0.9, color=color, label=name)
            axes.errorbar(middle, where, xerr=spread, fmt="none", ecolor="#333333", linewidth=1)
    title = textwrap.fill(MEASURES[measure].format(steps=rows[0].run["steps"]), 44)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xscale("log")
    axes.set_yticks(ticks, [row.name for row in rows], fontsize=11)
    axes.invert_yaxis()
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xlabel("time, in units of ours", fontsize=11)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right", "left"]].set_visible(False)
    low, high = axes.get_xlim()
    ends = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32) if low / 1.05 <= t <= high * 1.05]
    axes.set_xticks(ends)
