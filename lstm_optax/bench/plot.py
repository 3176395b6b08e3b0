"""The bar chart of a benchmark: the time of each contender relative to this library."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from lstm_optax.bench.config import LOWER_BOUND, OURS
from lstm_optax.bench.tables import MEASURE_TITLES, BenchRow, Records, bench_rows
from lstm_optax.plot_style import PALETTE, new_figure

_LINE_GREY = "#333333"


def bench_figure(records: Records, *, title: str = "", platform: str = "cpu") -> Figure:
    """Return a bar chart of the times relative to ours: a bar per row and contender.

    There is one panel per measure. A bar ends at the median of the ratios within each round, and a
    line spans their quartiles; to the right of 1, ours is faster. The scale is logarithmic. A
    contender has the same position in all panels, and no bar where it was not measured.

    Args:
      records: records from `read_bench`.
      title: title of the picture.
      platform: "cpu" or "gpu".
    """
    rows = bench_rows(records, platform)
    measures = [m for m in MEASURE_TITLES if any(_ratios(row, m) for row in rows)]
    places = _places(rows, measures)
    height = max(4.0, 1.6 + 0.17 * max(places.values(), default=0))
    figure = new_figure(15, height, title)
    if not measures:
        figure.text(0.5, 0.5, "nothing measured", ha="center", fontsize=14)
        return figure
    panels = figure.subplots(1, len(measures), squeeze=False, sharex=True, sharey=True)[0]
    colors = dict(zip(dict.fromkeys(name for _, name in places), PALETTE * 2, strict=False))
    for axes, measure in zip(panels, measures, strict=True):
        _draw_bars(axes, measure, rows, places, colors)
    _set_shared_axes(panels[0], rows, places, measures)
    legend = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=legend, loc="outside lower center", ncols=8, fontsize=11)
    return figure


Places = Mapping[tuple[str, str], float]
"""The vertical position of each (row, contender), counted from the top."""


def _ratios(row: BenchRow, measure: str) -> dict[str, list[float]]:
    """Return the quartiles of each contender's time relative to ours."""
    ratios = {name: row.ratio(measure, name) for name in row.contenders()}
    return {name: q for name, q in ratios.items() if q and name not in (OURS, LOWER_BOUND)}


def _places(rows: Sequence[BenchRow], measures: Sequence[str]) -> Places:
    places: dict[tuple[str, str], float] = {}
    place = 0.0
    for row in rows:
        for name in dict.fromkeys(name for measure in measures for name in _ratios(row, measure)):
            places[row.name, name] = place
            place += 1
        place += 1
    return places


def _draw_bars(
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
            axes.hlines(where, low, high, color=_LINE_GREY, linewidth=1)
    title = textwrap.fill(MEASURE_TITLES[measure].format(steps=rows[0].run["steps"]), 44)
    axes.set_title(title, fontsize=11, loc="left")
    axes.axvline(1, color=_LINE_GREY, linewidth=1)
    axes.set_xlabel("time, in units of ours", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _set_shared_axes(
    axes: Axes, rows: Sequence[BenchRow], places: Places, measures: Sequence[str]
) -> None:
    """Set the ticks and the limits of all panels; quartiles outside the bars' range are cut off."""
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
