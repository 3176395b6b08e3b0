"""The bar chart of a benchmark: how many times as long as ours each contender takes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from lstm_optax.bench.tables import FLOOR, MEASURES, OURS, BenchRow, Records, bench_rows

# Okabe and Ito's palette: told apart with any kind of colour vision.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def draw_bench(records: Records, path: str | PathLike[str], *, title: str = "") -> None:
    """Write `bench_figure` of the same records to `path`: a PNG 1500 pixels wide."""
    bench_figure(records, title=title).savefig(path, format="png", dpi=100)


def bench_figure(records: Records, *, title: str = "", platform: str = "cpu") -> Figure:
    """Bars of the time over ours, for each row and contender, one panel for each measure.

    Medians of the ratios within each round, with a line from quartile to quartile; right of the
    line at 1 ours is the faster one. The scale is logarithmic. A contender has the same place in
    all panels, and none where it was not measured.

    Args:
      records: as `read_bench` gives them.
      title: the line above the picture.
      platform: "cpu" or "gpu".
    """
    rows = bench_rows(records, platform)
    measures = [m for m in MEASURES if any(_ratios(row, m) for row in rows)]
    places = _places(rows, measures)
    size = (15, max(4.0, 1.6 + 0.17 * max(places.values(), default=0)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, x=0.01, horizontalalignment="left")
    if not measures:
        figure.text(0.5, 0.5, "nothing measured", ha="center", fontsize=14)
        return figure
    panels = figure.subplots(1, len(measures), squeeze=False, sharex=True, sharey=True)[0]
    colors = dict(zip(dict.fromkeys(name for _, name in places), _COLORS * 2, strict=False))
    for axes, measure in zip(panels, measures, strict=True):
        _draw(axes, measure, rows, places, colors)
    _label(panels[0], rows, places, measures)
    legend = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=legend, loc="outside lower center", ncols=8, fontsize=11)
    return figure


Places = Mapping[tuple[str, str], float]
"""(row, contender) → where its bars stand, from the top."""


def _ratios(row: BenchRow, measure: str) -> dict[str, list[float]]:
    """The quartiles of the contenders that were timed beside ours."""
    ratios = {name: row.ratio(measure, name) for name in row.contenders()}
    return {name: q for name, q in ratios.items() if q and name not in (OURS, FLOOR)}


def _places(rows: Sequence[BenchRow], measures: Sequence[str]) -> Places:
    places: dict[tuple[str, str], float] = {}
    place = 0.0
    for row in rows:
        for name in dict.fromkeys(name for measure in measures for name in _ratios(row, measure)):
            places[row.name, name] = place
            place += 1
        place += 1
    return places


def _draw(
    axes: Axes,
    measure: str,
    rows: Sequence[BenchRow],
    places: Places,
    colors: Mapping[str, str],
) -> None:
    rows = [row for row in rows if _ratios(row, measure)]
    for row in rows:
        for name, (low, middle, high) in _ratios(row, measure).items():
            where = places[row.name, name]
            axes.barh(where, middle - 1, left=1, height=0.9, color=colors[name])
            axes.hlines(where, low, high, color="#333333", linewidth=1)
    title = textwrap.fill(MEASURES[measure].format(steps=rows[0].run["steps"]), 44)
    axes.set_title(title, fontsize=11, loc="left")
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xlabel("time, in units of ours", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(axes: Axes, rows: Sequence[BenchRow], places: Places, measures: Sequence[str]) -> None:
    """Ticks and limits, which all panels share; what lies outside the bars' range is cut off."""
    ratios = [q for row in rows for measure in measures for q in _ratios(row, measure).values()]
    medians = [middle for _, middle, _ in ratios]
    low, high = min(1.0, *medians) / 1.05, max(1.0, *medians) * 1.1
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([t for t in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 4, 8, 16, 32) if low <= t <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    named: dict[str, list[float]] = {}
    for (row, _), where in places.items():
        named.setdefault(row, []).append(where)
    middles = [(where[0] + where[-1]) / 2 for where in named.values()]
    axes.set_yticks(middles, list(named), fontsize=11)
    axes.invert_yaxis()
