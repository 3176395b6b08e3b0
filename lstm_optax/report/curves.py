"""Charts of a metric against steps and against seconds, with a band over the seeds."""

from collections.abc import Sequence

import altair as alt

from lstm_optax.records import Record
from lstm_optax.report.looks import Looks, number_axis, y_scale
from lstm_optax.report.picture import Drawing, Picture, only_shown, rounded
from lstm_optax.report.series import Series, TaskFacts, curve_rows

MARKS = 7  # markers of a curve
WIDE = 20  # largest value over smallest, above which the axis is logarithmic
BLOWN_UP = 10  # times the largest first value, above which a loss is not drawn


def curve_pictures(series: Series, task: TaskFacts, looks: Looks) -> list[Picture]:
    """Return the charts of the metric and of the training loss; none without evaluations."""
    pictures = []
    wanted = [
        (task.metric, "step", "metric_against_steps"),
        (task.metric, "seconds", "metric_against_seconds"),
        ("loss", "step", "loss_against_steps"),
    ]
    for metric, x, name in wanted:
        rows, hidden = _drawable(curve_rows(series, metric), task, metric)
        if rows:
            pictures.append(_picture(name, rows, hidden, x, metric, task, looks))
    return pictures


def _picture(
    name: str,
    rows: Sequence[Record],
    hidden: int,
    x: str,
    metric: str,
    task: TaskFacts,
    looks: Looks,
) -> Picture:
    label = "training loss" if metric == "loss" else metric
    against = "training step" if x == "step" else "seconds of training"
    caption = "Line: mean over the seeds. Band: from the lowest to the highest seed."
    if x == "seconds":
        caption += " The seconds exclude compilation."
    if hidden:
        caption += f" {hidden} points are too far off to be drawn."
    lines = _lines(rows, x, label, against, looks)
    chart = lines if metric != task.metric or task.target is None else _with_target(lines, task)
    return Picture(
        name=name,
        title=f"{label.capitalize()} against {'steps' if x == 'step' else 'seconds'}",
        caption=caption,
        description=f"Lines of {label} against {against}. At the end: {_ends(rows, x)}.",
        chart=chart,
        rows={"curves": rows},
    )


def _lines(rows: Sequence[Record], x: str, label: str, against: str, looks: Looks) -> Drawing:
    values = [row["low"] for row in rows], [row["high"] for row in rows]
    low, high = min(values[0]), max(values[1])
    wide = low > 0 and high / low > WIDE
    scale = y_scale(wide)
    base = only_shown(alt.Chart(alt.NamedData("curves"))).encode(
        x=alt.X(f"{x}:Q", title=against, axis=number_axis()),
        color=looks.color(),
    )
    marks = number_axis(low, high) if wide else number_axis()
    y = alt.Y("mean:Q", title=label, scale=scale, axis=marks)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=label, scale=scale, axis=marks), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=looks.dash())
    points = (
        base.transform_filter("datum.marked")
        .mark_point(filled=True, size=60, opacity=1)
        .encode(y=y, shape=looks.shape(), tooltip=_tooltip(x, label))
    )
    return alt.layer(band, line, points)


def _with_target(lines: Drawing, task: TaskFacts) -> Drawing:
    data = alt.Data(values=[{"target": task.target, "text": f"target {task.target:.3g}"}])
    base = alt.Chart(data).encode(y="target:Q")
    rule = base.mark_rule(strokeDash=[2, 3], color="#777777")
    text = base.mark_text(align="left", dy=-6, color="#777777").encode(
        x=alt.value(4), text="text:N"
    )
    return alt.layer(lines, rule, text)


def _tooltip(x: str, label: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N", title="curve"),
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("seconds:Q", format=".3~r"),
        alt.Tooltip("mean:Q", title=f"{label}, mean", format=".4~r"),
        alt.Tooltip("low:Q", title="lowest", format=".4~r"),
        alt.Tooltip("high:Q", title="highest", format=".4~r"),
    ]


def _drawable(rows: Sequence[Record], task: TaskFacts, metric: str) -> tuple[list[Record], int]:
    """Return the rows to draw with markers chosen and numbers rounded, and how many are not."""
    kept = list(rows)
    if metric == "loss" or not task.larger_is_better:
        firsts = {row["series"]: row["mean"] for row in reversed(rows)}
        limit = BLOWN_UP * max(map(abs, firsts.values()), default=0.0)
        kept = [row for row in rows if row["high"] <= limit]
    counts: dict[str, int] = {}
    for row in kept:
        counts[row["series"]] = counts.get(row["series"], 0) + 1
    seen: dict[str, int] = {}
    drawn = []
    for row in kept:
        name = row["series"]
        place = seen[name] = seen.get(name, -1) + 1
        numbers = {k: rounded(v) for k, v in row.items() if isinstance(v, float)}
        drawn.append({**row, **numbers, "marked": _is_marked(place, counts[name])})
    return drawn, len(rows) - len(kept)


def _is_marked(place: int, count: int) -> bool:
    """Return whether a point has a marker: the last, and every so many before it."""
    return (count - 1 - place) % max(1, (count - 1) // MARKS) == 0


def _ends(rows: Sequence[Record], x: str) -> str:
    last = {row["series"]: row for row in rows}
    return "; ".join(f"{name} {row['mean']:.4g} at {x} {row[x]:.4g}" for name, row in last.items())
