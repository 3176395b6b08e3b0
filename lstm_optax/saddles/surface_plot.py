"""Pictures of descents: paths on the contour lines of a surface, and how soon saddles are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lstm_optax.plot_style import BLACK, GREY, PALETTE, add_grid, new_figure
from lstm_optax.records import Record
from lstm_optax.saddles.escape_theory import RULES, escape_law
from lstm_optax.studies.study_records import StudyError
from lstm_optax.tasks.surfaces import Surface, find_surface

_LEVELS = 18
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def surface_figure(
    paths: Mapping[str, ArrayLike], *, surface: str = "saddle", title: str = "", every: int = 10
) -> Figure:
    """Return a figure of paths on the contour lines of a surface.

    Args:
      paths: points [steps + 1, 2] by name of the optimizer, as `descent_path` returns them.
      surface: a name as for `tasks.surface`.
      title: title of the figure.
      every: number of steps between two marks on a path.

    Raises:
      StudyError: no path, or a path without a finite point.
      ValueError: an unknown surface.
    """
    figure = new_figure(8, 7, title or None)
    draw_paths(figure.add_subplot(), paths, surface, every)
    return figure


def saddle_figure(
    paths: Mapping[str, ArrayLike],
    records: Sequence[Record],
    *,
    learning_rate: float,
    shown: Sequence[str],
    every: int = 10,
) -> Figure:
    """Return a figure of paths near the saddle x² − y², next to the steps against log δ.

    Dotted lines are the theory of `escape_law` at its default momentum.

    Args:
      paths: as for `surface_figure`.
      records: as `saddle_table` returns them for the surface "saddle"; those without noise are
        drawn.
      learning_rate: of the records.
      shown: the optimizers of the records to draw, in the order of their colours.
      every: as for `surface_figure`.

    Raises:
      StudyError: as for `surface_figure`.
    """
    figure = new_figure(14, 6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_paths(left, paths, "saddle", every)
    left.set_title(f"paths on x² − y², a mark every {every} steps", fontsize=12, loc="left")
    _draw_steps(right, records, learning_rate, shown)
    return figure


def draw_paths(axes: Axes, paths: Mapping[str, ArrayLike], surface: str, every: int) -> None:
    """Draw paths on the contour lines of a surface; arguments as for `surface_figure`."""
    shape = find_surface(surface)
    points = {name: np.asarray(path, np.float64) for name, path in paths.items()}
    finite = [path[np.isfinite(path).all(axis=1)] for path in points.values()]
    if not finite or not all(map(len, finite)):
        raise StudyError("paths must hold at least one path, each with a finite point")
    saddle = shape.start is None
    low, high = _limits(np.concatenate([*finite, [shape.center]]), saddle)
    _draw_contours(axes, shape, low, high)
    for index, (name, path) in enumerate(points.items()):
        color, mark = PALETTE[index % len(PALETTE)], _MARKS[index % len(_MARKS)]
        style = {"color": color, "linewidth": 1.6, "marker": mark, "markersize": 5}
        axes.plot(*path.T, **style, markevery=every, label=name)
    axes.plot(*shape.center, "+" if saddle else "*", color=BLACK, markersize=13, zorder=3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="x", ylabel="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10, loc="best", framealpha=0.9)


def _limits(points: NDArray, saddle: bool) -> tuple[NDArray, NDArray]:
    """Return the corners of the visible part; of a saddle, the part where it is not level."""
    shown = np.clip(points, -1.5, 1.5) if saddle else points
    low, high = shown.min(axis=0), shown.max(axis=0)
    margin = 0.08 * np.max(high - low)
    return low - margin, high + margin


def _draw_contours(axes: Axes, shape: Surface, low: NDArray, high: NDArray) -> None:
    x, y = np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True)))
    points = jnp.asarray(np.stack([x.ravel(), y.ravel()], axis=1))
    heights = np.asarray(jax.vmap(shape.value)(points)).reshape(x.shape)
    if shape.start is None:
        levels = np.linspace(heights.min(), heights.max(), _LEVELS)
        axes.contour(x, y, heights, levels=[shape.target], colors=BLACK, linestyles="--")
        axes.plot([], [], color=BLACK, linestyle="--", label="the saddle is left")
    else:  # a valley: the levels are close where it is low
        levels = np.geomspace(max(heights.min(), 1e-3 * heights.max()), heights.max(), _LEVELS)
    axes.contourf(x, y, heights, levels=levels, cmap="Greys", alpha=0.3, extend="both")
    axes.contour(x, y, heights, levels=levels, colors=GREY, linestyles="-", linewidths=0.4)


def _draw_steps(
    axes: Axes, records: Sequence[Record], learning_rate: float, shown: Sequence[str]
) -> None:
    quiet = [r for r in records if not r["noise"] and r["delta"] and r["steps"][0] is not None]
    for index, name in enumerate(shown):
        pairs = sorted((r["delta"], r["steps"][0]) for r in quiet if r["optimizer"] == name)
        if not pairs:
            continue
        deltas, steps = np.array(pairs).T
        color, mark = PALETTE[index % len(PALETTE)], _MARKS[index % len(_MARKS)]
        if name in RULES:
            law = escape_law(name, learning_rate=learning_rate)
            predicted = [law.steps(delta) for delta in deltas]
            axes.plot(deltas, predicted, color=color, linestyle=":", linewidth=1.5)
        dashes = "none" if name in RULES else "-"
        style = {"color": color, "linestyle": dashes, "marker": mark, "markersize": 5}
        axes.plot(deltas, steps, **style, label=name)
    axes.plot([], [], color=GREY, linestyle=":", label="theory")
    axes.set(xscale="log", xlabel="displacement δ from the stable line")
    axes.invert_xaxis()
    axes.set_ylabel("steps until the saddle is left")
    axes.set_ylim(bottom=0)
    axes.set_title(f"steps at η = {learning_rate:g}", fontsize=12, loc="left")
    add_grid(axes)
    axes.legend(fontsize=10, frameon=False)
