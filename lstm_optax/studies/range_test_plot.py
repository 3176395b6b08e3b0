"""A picture of a learning-rate range test."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lstm_optax.plot_style import BLUE, GREEN, GREY, SKY_BLUE, VERMILION, add_grid, new_figure
from lstm_optax.studies._range_test import RangeTest


def range_test_figure(result: RangeTest) -> Figure:
    """Draw the loss against the learning rate, with the proposed grid and the end of the run.

    Args:
      result: of `range_test`.
    """
    figure = new_figure(9, 5.2, f"learning-rate range test, {result.name}")
    axes = figure.add_subplot()
    add_grid(axes)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate", fontsize=12)
    axes.set_ylabel("training loss", fontsize=12)
    axes.tick_params(labelsize=11)
    axes.plot(
        result.rates, result.losses, "o", color=SKY_BLUE, markersize=4, label="mean of an interval"
    )
    axes.plot(result.rates, result.smoothed, color=BLUE, linewidth=2.4, label="running median")
    _limit_losses(axes, result)
    _draw_grid_rates(axes, result)
    if result.unstable is not None:
        label = f"unstable at {result.unstable:.2g}"
        axes.axvline(result.unstable, color=VERMILION, linewidth=1.6, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=11, frameon=False)
    if result.reason:
        place: dict[str, Any] = dict(transform=axes.transAxes, ha="center", fontsize=12, color=GREY)
        axes.text(0.5, 0.03, f"no grid: {result.reason}", **place)
    return figure


def _limit_losses(axes: Axes, result: RangeTest) -> None:
    """Limit the axis to the losses of a stable training; log scale for a range of two decades."""
    finite = [loss for loss in result.smoothed if math.isfinite(loss)]
    if not finite:
        return
    low = min(finite)
    until = result.smoothed.index(low) + 1  # later losses may be of a training that diverges
    high = max((loss for loss in result.losses[:until] if math.isfinite(loss)), default=low)
    if low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 2, 4 * high)
    elif high > low:
        axes.set_ylim(low - 0.15 * (high - low), high + 0.25 * (high - low))


def _draw_grid_rates(axes: Axes, result: RangeTest) -> None:
    """Draw a line at each rate of the grid, with its value at the lower end."""
    for i, rate in enumerate(result.grid):
        label = "proposed grid" if i == 0 else None
        axes.axvline(rate, color=GREEN, linewidth=1.2, linestyle=(0, (5, 3)), label=label)
        axes.annotate(
            f"{rate:g}",
            xy=(rate, 0.02),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=10,
            color=GREY,
        )
    axes.xaxis.set_minor_formatter(NullFormatter())
