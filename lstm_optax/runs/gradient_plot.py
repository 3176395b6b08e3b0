"""Picture of the gradients inside an LSTM over the course of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lstm_optax.plot_style import GREY, PALETTE, add_grid, new_figure

_FIELDS = ("h", "reach", "gates", "high", "low")
_GATES = ("input", "forget", "cell", "output")
_RED = "#D00000"
_DECADES = 12  # range of the colour scale, below the largest gradient


def gradient_figure(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Return a figure of the gradients inside an LSTM, one row of four panels for each layer.

    From left to right:

    1. The norm of ∂L/∂h as a heat map: time step of the window against training step, the latest
       on top. Red marks a norm that was not finite, grey a norm of 0.
    2. The same for the loss at the last time step only. It darkens to the left where the gradient
       vanishes.
    3. The norm of the gradient with respect to each gate's pre-activations.
    4. The saturated share of each gate, at the high and at the low end.

    Args:
      rows: the rows of gradients.jsonl: "step", "h" and "reach" [layer][time], and "gates", "low",
        "high" [layer][time][gate]; None where a number was not finite.
      title: title of the figure.
    """
    rows = sorted(rows, key=lambda row: row["step"])
    layers = len(rows[-1]["h"]) if rows else 0
    figure = new_figure(18, 0.6 + 4.2 * max(layers, 1), title)
    if not rows:
        figure.text(0.5, 0.5, "no gradients recorded", ha="center", fontsize=14, color=GREY)
        return figure
    steps = np.array([row["step"] for row in rows])
    panels = figure.subplots(layers, 4, squeeze=False, width_ratios=(1.25, 1.25, 1, 1))
    for layer, (whole, last, gates, saturated) in enumerate(panels):
        name = f"layer {layer}: " if layers > 1 else ""
        values = {field: _layer_values(rows, field, layer) for field in _FIELDS}
        _draw_heat_map(whole, steps, values["h"], f"{name}‖∂L/∂h‖")
        _draw_heat_map(last, steps, values["reach"], f"{name}‖∂L/∂h‖ of the last step's loss")
        _draw_gate_norms(gates, steps, values["gates"], f"{name}gradient by each gate")
        _draw_saturation(saturated, steps, values["high"], values["low"], f"{name}saturated share")
    return figure


def _layer_values(rows: Sequence[Mapping[str, Any]], field: str, layer: int) -> NDArray[np.float64]:
    """Return an array [row, time] or [row, time, gate], NaN where a number was not finite."""
    return np.array([row[field][layer] for row in rows], np.float64)


def _draw_heat_map(axes: Axes, steps: NDArray, norms: NDArray[np.float64], title: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_xlabel("time step in the window", fontsize=11)
    axes.set_ylabel("training step", fontsize=11)
    shown = np.where(norms == 0, -np.inf, np.log10(np.where(norms > 0, norms, np.nan)))
    finite = shown[np.isfinite(shown)]
    high = finite.max() if finite.size else 0.0
    low = max(finite.min(), high - _DECADES) if finite.size else -1.0
    colors = colormaps["viridis"].with_extremes(bad=_RED, under="#cccccc")
    if finite.size and finite.min() < low:
        # Draw values below the scale in its darkest colour: grey means 0.
        shown = np.where(np.isfinite(shown), np.maximum(shown, low), shown)
    image = axes.imshow(
        np.ma.masked_invalid(np.where(np.isneginf(shown), low - 1e3, shown)),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colors,
        norm=Normalize(low, max(high, low + 1e-3)),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    places = np.arange(0, len(steps), -(-len(steps) // 8))
    axes.set_yticks(places, [f"{steps[place]:,}" for place in places])
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("log₁₀ of the norm", fontsize=10)


def _draw_gate_norms(axes: Axes, steps: NDArray, gates: NDArray[np.float64], title: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_ylabel("norm over all time steps", fontsize=11)
    total = np.sqrt(np.sum(gates**2, axis=1))
    for k, gate in enumerate(_GATES):
        shown = np.where(total[:, k] > 0, total[:, k], np.nan)
        axes.plot(steps, shown, color=PALETTE[k], marker="o", markersize=3, label=gate)
    if np.any(total > 0):
        axes.set_yscale("log")
    lost = np.flatnonzero(np.isnan(total).any(axis=1))
    for step in steps[lost]:
        axes.axvline(step, color=_RED, linewidth=1.2)
    if lost.size:
        axes.plot([], [], color=_RED, label="not finite")
    _style_axes(axes)


def _draw_saturation(axes: Axes, steps: NDArray, high: NDArray, low: NDArray, title: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_ylabel("share of units", fontsize=11)
    for k in range(len(_GATES)):
        for share, dashes in ((high, "-"), (low, (0, (3, 1.5)))):
            mean = share[:, :, k].mean(axis=1)
            axes.plot(steps, mean, color=PALETTE[k], linestyle=dashes, marker="o", markersize=3)
    axes.plot([], [], color=GREY, linestyle="-", label="high end")
    axes.plot([], [], color=GREY, linestyle=(0, (3, 1.5)), label="low end")
    axes.set_ylim(-0.02, 1.02)
    _style_axes(axes)


def _style_axes(axes: Axes) -> None:
    axes.set_xlabel("training step", fontsize=11)
    add_grid(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.legend(fontsize=10, frameon=False, loc="best", ncols=2)
