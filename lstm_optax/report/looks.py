"""Colour, dash and marker of each curve, and the style that all charts of a report share."""

import math
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import altair as alt

from lstm_optax.plot_style import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION

# No yellow and no black, which are hard to see on a light and on a dark page. Numbers of colours,
# dashes and markers share no divisor, so 140 curves differ in at least one of the three.
COLORS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY_BLUE, "#8A8A8A")
DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2))
MARKERS = ("circle", "square", "triangle-up", "diamond", "cross")
SHADES = "viridis"  # for numbers: its lightness rises evenly

FONT = "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
_MARKER_LEGEND = alt.Legend(title=None, symbolOpacity=1, symbolDash=[1, 0])

HIDDEN = "hidden"  # parameter of each chart with curves: the names that are not drawn


class Looks:
    """The looks of named curves, the same in all charts of a report.

    Args:
      names: of the curves, without repetitions.
    """

    def __init__(self, names: Sequence[str]):
        self.names: list[str] = list(names)

    def _cycle(self, values: Sequence[Any]) -> list[Any]:
        return list(islice(cycle(values), len(self.names)))

    def of(self, name: str) -> tuple[str, tuple[int, ...], str]:
        """Return colour, dashes and marker of a curve."""
        place = self.names.index(name)
        return tuple(values[place % len(values)] for values in (COLORS, DASHES, MARKERS))  # pyright: ignore[reportReturnType]

    def color(self) -> alt.Color:
        """Return the encoding of the field "series" as a colour."""
        return alt.Color("series:N", scale=self._scale(COLORS), legend=_MARKER_LEGEND)

    def dash(self) -> alt.StrokeDash:
        """Return the encoding of the field "series" as dashes, which are not in the legend."""
        scale = self._scale([list(dashes) for dashes in DASHES])
        return alt.StrokeDash("series:N", scale=scale, legend=None)

    def shape(self) -> alt.Shape:
        """Return the encoding of the field "series" as a marker."""
        return alt.Shape("series:N", scale=self._scale(MARKERS), legend=_MARKER_LEGEND)

    def width(self) -> alt.StrokeWidth:
        """Return the encoding of the field "series" as a width.

        Where lines overlap, the wider line below shows on both sides of the line above.
        """
        widths = [max(1.6, 4.0 - 0.8 * place) for place in range(len(self.names))]
        scale = alt.Scale(type="ordinal", domain=self.names, range=widths)
        return alt.StrokeWidth("series:O", sort=self.names, scale=scale, legend=None)

    def _scale(self, values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=self.names, range=self._cycle(values))


def number_axis(low: float = 0.0, high: float = 0.0) -> alt.Axis:
    """Return an axis for numbers of any size, with short labels.

    Args:
      low: smallest value on a logarithmic axis, whose ticks are then at 1, 2, 5 or powers of ten.
      high: largest value.
    """
    small = "abs(datum.value) >= 1e5 || abs(datum.value) < 1e-3 && datum.value != 0"
    text = f"{small} ? replace(format(datum.value, '.1~e'), '+', '') : format(datum.value, '~g')"
    axis = alt.Axis(labelExpr=text, labelOverlap="greedy", labelSeparation=6, tickCount=6)
    if 0 < low < high:
        axis.values = _log_ticks(low, high)
    return axis


def y_scale(logarithmic: bool) -> alt.Scale:
    """Return the scale of a metric, which need not begin at 0."""
    return alt.Scale(type="log", nice=False, padding=8) if logarithmic else alt.Scale(zero=False)


def _log_ticks(low: float, high: float) -> list[float]:
    start, stop = math.log10(low), math.log10(high)
    powers = range(math.floor(start), math.ceil(stop) + 1)
    factors = (1,) if stop - start >= 2 else (1, 2, 5)
    stride = max(1, round((stop - start) / 8))
    ticks = [factor * 10.0**power for power in powers[::stride] for factor in factors]
    return [rounded_tick for tick in ticks if low <= (rounded_tick := float(f"{tick:.3g}")) <= high]


def style() -> dict[str, Any]:
    """Return the Vega-Lite configuration of all charts."""
    text = {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"}
    grey = {"gridColor": "#e3e3e3", "domainColor": "#999999", "tickColor": "#999999"}
    return {
        "background": "white",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {**text, **grey, "labelColor": "#444444", "titleColor": "#222222"},
        "legend": {**text, "symbolSize": 120, "symbolStrokeWidth": 2, "labelLimit": 300},
        "title": {"anchor": "start", "fontSize": 15, "offset": 12},
        "aria": True,
    }
