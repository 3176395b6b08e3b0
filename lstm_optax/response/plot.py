"""A picture of the responses of several transformations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lstm_optax.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
    add_grid,
    new_figure,
)
from lstm_optax.response.responses import Response

# No yellow, which is hard to see as a line. Where lines overlap, the wider line below shows through
# the gaps of the dashed line above.
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION, BLACK)
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


def response_figure(responses: Sequence[Response]) -> Figure:
    """Draw a panel for each measurement, with a line for each transformation.

    Args:
      responses: the results of `explain`, at least one.
    """
    figure = new_figure(12.5, 7.2)
    panels = figure.subplots(2, 3)
    for axes, draw in zip(panels.flat, _PANELS, strict=False):
        draw(axes, responses)
        add_grid(axes)
    _draw_legend(panels.flat[-1], panels.flat[0])
    return figure


def _draw_constant(axes: Axes, responses: Sequence[Response]) -> None:
    _label_axes(axes, "constant gradient of 1", "step number", _step_label(responses))
    axes.set_xscale("log")
    _include_values(axes, 0)
    _draw_lines(axes, responses, lambda response: _thin_out(response.constant))


def _draw_impulse(axes: Axes, responses: Sequence[Response]) -> None:
    _label_axes(axes, "impulse: a gradient of 1, then zeros", "step number", _step_label(responses))
    axes.set_xscale("log")
    _include_values(axes, 0)
    _draw_lines(axes, responses, lambda response: _thin_out(response.impulse))


def _draw_spike(axes: Axes, responses: Sequence[Response]) -> None:
    title = "spike: a gradient of 1,000 among 1s"
    _label_axes(axes, title, "step number, the spike's is 1", "|step| ÷ step without the spike")
    axes.set(xscale="log", yscale="log")
    axes.axhline(1, color=GREY, linewidth=0.8)
    _include_values(axes, 0.5, 2)
    _draw_lines(axes, responses, lambda response: _thin_out(np.abs(response.spike.relative)))


def _draw_scale(axes: Axes, responses: Sequence[Response]) -> None:
    label = _step_label(responses).replace("step", "|first step|", 1)
    _label_axes(axes, "first step against the gradient's size", "gradient", label)
    axes.set(xscale="log", yscale="log")
    usual = max((abs(response.constant[0]) for response in responses), default=1.0)
    if np.isfinite(usual) and usual > 0:
        _include_values(axes, usual / 10, usual * 10)
    _draw_lines(
        axes,
        responses,
        lambda response: (response.scale.inputs, np.abs(response.scale.outputs)),
    )


def _draw_rate(axes: Axes, responses: Sequence[Response]) -> None:
    title = "learning rate cut to a tenth"
    _label_axes(axes, title, "step number, from the cut on", "step ÷ step without the cut")
    axes.set(xscale="log", yscale="log")
    axes.axhline(0.1, color=GREY, linewidth=0.8)
    _include_values(axes, 0.08, 1.25)
    measured = any(response.rate is not None for response in responses)
    if not measured:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    _draw_lines(
        axes,
        responses,
        lambda response: _thin_out(np.abs(response.rate.relative) if response.rate else []),
    )
    axes.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
    axes.minorticks_off()


def _step_label(responses: Sequence[Response]) -> str:
    rates = [response.learning_rate is not None for response in responses]
    return "step, in learning rates" if all(rates) else "step"


def _label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_xlabel(x, fontsize=11)
    axes.set_ylabel(y, fontsize=11)


def _include_values(axes: Axes, *values: float) -> None:
    """Extend the axis to these values, so that it does not magnify the rounding of a flat line."""
    axes.update_datalim([(1, value) for value in values])


def _thin_out(steps: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return step numbers and steps, at most about 300, evenly spread over the decades."""
    steps = np.asarray(steps, np.float64)
    if steps.size == 0:
        return steps, steps
    places = np.unique(np.geomspace(1, steps.size, 300).round().astype(int))
    return places.astype(np.float64), steps[places - 1]


def _draw_lines(
    axes: Axes, responses: Sequence[Response], read: Callable[[Response], tuple[ArrayLike, NDArray]]
) -> None:
    for index, response in enumerate(responses):
        x, y = read(response)
        logarithmic = axes.get_yscale() == "log"
        shown = np.isfinite(y) & ((y > 0) | (not logarithmic))
        axes.plot(
            x,
            np.where(shown, y, np.nan),
            color=_COLORS[index % len(_COLORS)],
            linestyle=_DASHES[index % len(_DASHES)],
            linewidth=max(1.8, 4.0 - 1.0 * index),
            label=response.name,
        )


def _draw_legend(axes: Axes, example: Axes) -> None:
    """Draw the legend in a panel of its own, where it covers no line."""
    axes.axis("off")
    handles, names = example.get_legend_handles_labels()
    few = len(names) <= 12
    look = {"fontsize": 12, "handlelength": 4} if few else {"fontsize": 7, "ncols": 2}
    axes.legend(handles, names, loc="center", frameon=False, **look)


_PANELS = (_draw_constant, _draw_impulse, _draw_spike, _draw_scale, _draw_rate)
