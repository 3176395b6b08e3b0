"""Trajectories of optimizers on contour lines, for a task that is a surface over a plane."""

import math
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
from numpy.typing import NDArray

from lstm_optax.records import Record
from lstm_optax.report.looks import Looks
from lstm_optax.report.picture import Drawing, Picture, only_shown, rounded
from lstm_optax.report.series import Series
from lstm_optax.studies.study_records import StudyRecords

GRID = 200  # points of the surface in each direction
LEVELS = 14  # contour lines
MOST_POINTS = 300  # of a trajectory
FARTHEST = 2.5  # see `_extent`
MARGIN = 0.1  # of the trajectories' extent, around them


def trajectory_pictures(study: StudyRecords, series: Series, looks: Looks) -> list[Picture]:
    """Return the chart of the trajectories; none if the task is not a surface."""
    settings: Mapping = study.study["task"]["settings"]
    if "surface" not in settings or not series:
        return []
    points = _points(series, settings["start"])
    x, y, values = _sample_surface(settings, points)
    rows = {"contours": _contours(x, y, values), "points": points}
    ends = {row["series"]: row for row in points}
    words = "; ".join(f"{n} at ({r['x']:.3g}, {r['y']:.3g})" for n, r in ends.items())
    return [
        Picture(
            name="trajectories",
            title=f"Trajectories on the surface {settings['surface']}",
            caption=(
                "Grey: contour lines, darker where the surface is lower. Circle: the start. "
                "Marker: the end. One trajectory per curve, of its first seed."
            ),
            description=f"Paths of the optimizers over the plane. They end: {words}.",
            chart=_chart(x, y, looks),
            rows=rows,
            height=460,
        )
    ]


def _chart(x: NDArray, y: NDArray, looks: Looks) -> Drawing:
    across = alt.X("x:Q", title="x", scale=_scale(x), axis=alt.Axis(grid=False))
    up = alt.Y("y:Q", title="y", scale=_scale(y), axis=alt.Axis(grid=False))
    greys = alt.Scale(range=["#8a8a8a", "#d9d9d9"])
    contours = (
        alt.Chart(alt.NamedData("contours"))
        .mark_line(strokeWidth=1, clip=True)
        .encode(
            x=across,
            y=up,
            order="order:Q",
            detail="line:N",
            stroke=alt.Stroke("level:Q", scale=greys, legend=None),
        )
    )
    base = alt.Chart(alt.NamedData("points")).encode(x=across, y=up, color=looks.color())
    shown = only_shown(base)
    paths = shown.mark_line(strokeWidth=2, clip=True).encode(
        order="step:Q", strokeDash=looks.dash()
    )
    start = base.transform_filter("datum.start").mark_point(
        size=140, strokeWidth=2, color="#888888"
    )
    ends = (
        shown.transform_filter("datum.end")
        .mark_point(filled=True, size=110, opacity=1, clip=True)
        .encode(
            shape=looks.shape(),
            tooltip=["series:N", "step:Q", "x:Q", "y:Q", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    return alt.layer(contours, paths, start, ends)


def _scale(values: NDArray) -> alt.Scale:
    return alt.Scale(domain=[float(values[0]), float(values[-1])], nice=False, zero=False)


def _points(series: Series, start: Sequence[float]) -> list[Record]:
    """Return the points of the first trial of each curve, in the order of the steps."""
    rows = []
    for name, trials in series.items():
        first = {"step": 0, "x": start[0], "y": start[1]}
        found = [first, *(row for row in trials[0].evaluations if _has_point(row))]
        for place in _places(len(found)):
            row = found[place]
            point = {axis: rounded(row[axis]) for axis in "xy"}
            marks = {"start": place == 0, "end": place == len(found) - 1}
            value = row.get("validation")
            rows.append({"series": name, "step": row["step"], "value": value} | point | marks)
    return rows


def _sample_surface(
    settings: Mapping, points: Sequence[Record]
) -> tuple[NDArray, NDArray, NDArray]:
    """Return x, y and the values [y, x] around the trajectories."""
    import jax
    import jax.numpy as jnp

    from lstm_optax.tasks.surfaces import find_surface

    surface = find_surface(settings["surface"], condition=settings.get("condition"))
    x, y = (
        _extent([row[axis] for row in points], surface.center[place])
        for place, axis in enumerate(("x", "y"))
    )
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), axis=-1)
    return x, y, np.asarray(jax.vmap(jax.vmap(surface.value))(grid), np.float64)


def _extent(values: Sequence[float], center: float) -> NDArray:
    """Return evenly spaced numbers over the values; the first value is the start.

    Points that are further off than FARTHEST times the distance from start to center, or FARTHEST,
    are outside.
    """
    near = min(values[0], center), max(values[0], center)
    reach = FARTHEST * max(near[1] - near[0], 1.0)
    low = max(min(*values, center), near[0] - reach)
    high = min(max(*values, center), near[1] + reach)
    margin = MARGIN * ((high - low) or 1.0)
    return np.linspace(low - margin, high + margin, GRID)


def _contours(x: NDArray, y: NDArray, values: NDArray) -> list[Record]:
    """Return the points of contour lines at evenly spread quantiles of the values."""
    from contourpy import contour_generator

    shares = np.linspace(0, 1, LEVELS + 2)[1:-1]
    generator = contour_generator(x, y, values)
    rows, line = [], 0
    for place, level in enumerate(np.unique(np.quantile(values, shares))):
        for points in generator.lines(float(level)):
            for order, (across, up) in enumerate(np.asarray(points)[:: _stride(len(points))]):
                point = {"x": float(f"{across:.4g}"), "y": float(f"{up:.4g}")}
                rows.append({"line": line, "level": place, "order": order, **point})
            line += 1
    return rows


def _stride(count: int) -> int:
    return max(1, count // 80)


def _places(count: int) -> list[int]:
    """Return at most MOST_POINTS places, evenly spread, with the first and the last."""
    if count <= MOST_POINTS:
        return list(range(count))
    return [round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)]


def _has_point(row: Record) -> bool:
    return all(isinstance(row.get(axis), int | float) and math.isfinite(row[axis]) for axis in "xy")
