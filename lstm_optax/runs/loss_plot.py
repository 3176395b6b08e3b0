"""Picture of the loss curves of a run, with the losses of baselines."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lstm_optax.plot_style import BLUE, GREY, ORANGE, new_figure
from lstm_optax.runs.tables import in_bits

_Series: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps, losses

_VALIDATION, _TRAINING = BLUE, ORANGE


def loss_figure(
    records: Sequence[Mapping[str, Any]],
    baselines: Mapping[str, float],
    *,
    title: str = "",
    unit: str = "",
) -> Figure:
    """Return a figure of the training and validation loss, with a line for each visible baseline.

    Args:
      records: one dict per logged step with "step", "train_loss" and "val_loss"; each value may be
        missing, None or not finite. More than 500 training losses are drawn as 500 means of
        neighbours.
      baselines: losses of other models by name, such as those of `ngram_losses`. The lowest one is
        always visible; baselines above the curves are left out.
      title: title of the figure.
      unit: unit of the losses. A unit that begins with "nats", such as "nats per character", adds
        an axis in bits.
    """
    training = _block_means(_series(records, "train_loss"))
    validation = _series(records, "val_loss")
    losses = np.concatenate([training[1], validation[1]])
    losses = losses[np.isfinite(losses)]
    figure = new_figure(10, 6, title)
    axes = figure.add_subplot()
    _label_axes(axes, unit)
    if losses.size:
        _draw_curves(axes, training, validation)
        axes.set_ylim(_visible_range(losses, baselines.values()))
        _draw_baselines(axes, baselines)
        if in_bits(unit):
            _add_bits_axis(axes, in_bits(unit))
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no losses recorded", ha="center", fontsize=14, color=GREY)
    return figure


def _series(records: Sequence[Mapping[str, Any]], key: str) -> _Series:
    """Return the sorted steps and their losses; NaN, a gap, where a loss is not finite."""
    pairs = [
        (record["step"], record[key])
        for record in records
        if record.get("step") is not None and record.get(key) is not None
    ]
    pairs.sort(key=lambda pair: pair[0])  # a resumed run may repeat steps
    steps, losses = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, np.where(np.isfinite(losses), losses, np.nan)


def _block_means(series: _Series, limit: int = 500) -> _Series:
    """Return at most `limit` points, each the mean of neighbours; more would be unreadable."""
    steps, losses = series
    if len(steps) <= limit:
        return series
    blocks = zip(np.array_split(steps, limit), np.array_split(losses, limit), strict=True)
    mean_steps, mean_losses = np.array([(step.mean(), loss.mean()) for step, loss in blocks]).T
    return mean_steps, mean_losses


def _label_axes(axes: Axes, unit: str) -> None:
    axes.set_xlabel("step", fontsize=12)
    axes.set_ylabel(f"loss, {unit}" if unit else "loss", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)


def _add_bits_axis(axes: Axes, unit: str) -> None:
    bits = axes.secondary_yaxis(-0.095, functions=(_to_bits, _to_nats))
    bits.set_ylabel(unit, fontsize=11, color=GREY)
    bits.tick_params(labelsize=10, color=GREY, labelcolor=GREY)
    bits.spines["left"].set_visible(False)


def _to_bits(nats: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(nats, np.float64) / math.log(2)


def _to_nats(bits: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(bits, np.float64) * math.log(2)


def _draw_curves(axes: Axes, training: _Series, validation: _Series) -> None:
    curves = []
    if _has_losses(training):
        curves.append((training, "training", _TRAINING, 1.2))
    if _has_losses(validation):
        label = f"validation, lowest {np.nanmin(validation[1]):.3f}"
        curves.append((validation, label, _VALIDATION, 2.4))
    for (steps, losses), label, color, width in curves:
        marker = "o" if len(steps) <= 40 else ""  # a single point has no visible line
        axes.plot(
            steps, losses, color=color, linewidth=width, marker=marker, markersize=5, label=label
        )
    last = max(steps[-1] for (steps, _), *_ in curves)
    axes.set_xlim(0, max(1.0, 1.02 * last))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=12, frameon=False)


def _has_losses(series: _Series) -> bool:
    return bool(np.isfinite(series[1]).any())


def _visible_range(
    losses: NDArray[np.float64], baselines: Collection[float]
) -> tuple[float, float]:
    """Return y limits that show the lowest baseline and all losses except the highest 2 %.

    The first few losses of a long run are so high that they would flatten the rest.
    """
    lowest_baseline = min(baselines, default=float(losses.min()))
    high = max(float(np.quantile(losses, 0.98, method="higher")), lowest_baseline)
    low = min(float(losses.min()), lowest_baseline)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    """Draw a line for each visible baseline, with its name in the right margin."""
    low, high = axes.get_ylim()
    place = -math.inf
    for name, loss in sorted(baselines.items(), key=lambda baseline: baseline[1]):
        if loss > high:
            continue
        axes.axhline(loss, color=GREY, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
        place = max(loss, place + 0.04 * (high - low))
        axes.annotate(
            f"{name} {loss:.3f}",
            xy=(1, loss),
            xytext=(1.03, place),
            xycoords=axes.get_yaxis_transform(),
            annotation_clip=False,
            verticalalignment="center",
            fontsize=11,
            color=GREY,
            arrowprops={
                "arrowstyle": "-",
                "color": GREY,
                "linewidth": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )
