"""Parallel coordinates: one line per trial over its hyper-parameters and its result."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from lstm_optax.plot_style import VERMILION
from lstm_optax.records import Record
from lstm_optax.report.looks import SHADES
from lstm_optax.report.picture import Drawing, Picture, rounded
from lstm_optax.report.series import varying_names
from lstm_optax.studies.outcomes import Metric, has_diverged, has_ended, value_at_end
from lstm_optax.studies.study_grid import format_number, format_value
from lstm_optax.studies.study_records import StudyRecords, TrialRecords

FEWEST = 3  # hyper-parameters that a chart needs
MOST_LABELS = 8  # of an axis; with more values, only the ends have one
WIDE = 10  # largest value over smallest, from which on an axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """One of the parallel axes.

    Attributes:
      name: of a hyper-parameter or of the metric.
      places: where each value is, from 0 at the bottom to 1 at the top.
      labels: the values that have a label.
    """

    name: str
    places: Mapping[Any, float]
    labels: Mapping[Any, str]

    @classmethod
    def of(cls, name: str, values: Sequence[Any], *, ends: bool = False) -> "Axis":
        """Return an axis for these values: numbers to scale, all others evenly spread.

        Args:
          name: of the axis.
          values: at least one.
          ends: label the smallest and the largest only.
        """
        distinct = list(dict.fromkeys(values))
        if all(_is_number(value) for value in distinct):
            distinct.sort()
            wide = distinct[0] > 0 and distinct[-1] / distinct[0] >= WIDE
            scaled = [math.log(value) if wide else value for value in distinct]
        else:
            scaled = list(range(len(distinct)))
        span = (scaled[-1] - scaled[0]) or 1
        places = {v: (s - scaled[0]) / span for v, s in zip(distinct, scaled, strict=True)}
        if ends or len(distinct) > MOST_LABELS:
            distinct = [distinct[0], distinct[-1]]
        if all(_is_number(value) for value in distinct):
            return cls(name, places, {v: format_number(v) for v in distinct})
        return cls(name, places, {v: format_value(v) for v in distinct})


def parallel_pictures(study: StudyRecords, metric: Metric) -> list[Picture]:
    """Return a chart for each optimizer that was tuned over more than two hyper-parameters."""
    pictures = []
    for number, optimizer in enumerate(study.optimizers):
        trials = [
            trial
            for trial in study.trials.values()
            if trial.optimizer == optimizer and trial.part == "tuning" and has_ended(trial)
        ]
        names = varying_names(trials)
        trials = [trial for trial in trials if set(names) <= trial.hyper.keys()]
        if len(names) >= FEWEST and not all(has_diverged(trial, metric) for trial in trials):
            pictures.append(_picture(optimizer, number, names, trials, metric))
    return pictures


def _picture(
    optimizer: str,
    number: int,
    names: Sequence[str],
    trials: Sequence[TrialRecords],
    metric: Metric,
) -> Picture:
    results = {t.name: value_at_end(t, metric) for t in trials if not has_diverged(t, metric)}
    order = sorted(results, key=lambda name: metric.cost(results[name]))
    axes = [Axis.of(name, [trial.hyper[name] for trial in trials]) for name in names]
    result = Axis.of(f"final {metric.name}", list(results.values()), ends=True)
    lines = [row for trial in trials for row in _line(trial, axes, result, results.get(trial.name))]
    ranks = {name: rank for rank, name in enumerate(order, 1)}
    ticks = [
        {"axis": axis.name, "place": rounded(axis.places[value]), "text": text}
        for axis in (*axes, result)
        for value, text in axis.labels.items()
    ]
    return Picture(
        name=f"parallel_coordinates_{number}",
        title=f"Hyper-parameters of {optimizer}",
        caption=(
            f"One line per trial; the brighter, the better its {metric.name}. The dashed lines "
            f"diverged ({len(trials) - len(results)}). Hover over a line to single it out."
        ),
        description=(
            f"Parallel coordinates of {len(trials)} trials of {optimizer} over {', '.join(names)}. "
            f"The best: {order[0]}, {results[order[0]]:.4g}."
        ),
        chart=_chart([axis.name for axis in (*axes, result)]),
        rows={"lines": [row | {"rank": ranks.get(row["trial"])} for row in lines], "ticks": ticks},
        height=360,
    )


def _chart(names: list[str]) -> Drawing:
    top = alt.Axis(labelAngle=0, grid=True, orient="top", domain=False, ticks=False)
    x = alt.X("axis:N", sort=names, title=None, axis=top)
    near = alt.selection_point(fields=["trial"], on="pointerover", name="near")
    base = alt.Chart(alt.NamedData("lines")).encode(
        x=x,
        y=alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.04, 1.04], nice=False)),
        detail="trial:N",
        tooltip=["trial:N", alt.Tooltip("value:Q", title="result", format=".4~r")],
    )
    rank = alt.Color(
        "rank:Q",
        title="rank",
        scale=alt.Scale(scheme=SHADES, reverse=True),
        legend=alt.Legend(orient="bottom", gradientLength=200, tickCount=4),
    )
    finished = (
        base.transform_filter("isValid(datum.rank)")
        .mark_line()
        .encode(
            color=rank,
            opacity=alt.condition(near, alt.value(0.9), alt.value(0.08)),
            strokeWidth=alt.condition(near, alt.value(2.2), alt.value(1)),
        )
        .add_params(near)
    )
    diverged = base.transform_filter("!isValid(datum.rank)").mark_line(
        strokeDash=[2, 3], color=VERMILION, opacity=0.35
    )
    ticks = (
        alt.Chart(alt.NamedData("ticks"))
        .mark_text(align="left", dx=5, fontSize=12)
        .encode(x=x, y="place:Q", text="text:N")
        .properties(name="ticks")
    )
    return alt.layer(diverged, finished, ticks)


def _line(
    trial: TrialRecords, axes: Sequence[Axis], result: Axis, value: float | None
) -> list[Record]:
    """Return a row for each axis; a diverged trial, whose value is None, has no result."""
    shown = None if value is None else rounded(value)
    rows = [
        {"axis": axis.name, "place": rounded(axis.places[trial.hyper[axis.name]])} for axis in axes
    ]
    if value is not None:
        rows.append({"axis": result.name, "place": rounded(result.places[value])})
    return [row | {"trial": trial.name, "value": shown} for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
