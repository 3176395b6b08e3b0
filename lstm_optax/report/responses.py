"""Charts of what each optimizer does to test gradients, measured by `explain`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np
from numpy.typing import ArrayLike

from lstm_optax.names import check_optimizer
from lstm_optax.records import Record
from lstm_optax.report.looks import Looks, number_axis
from lstm_optax.report.picture import Drawing, Picture, only_shown, rounded
from lstm_optax.runs.hyper_parameters import hyper_parameters_of
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.studies.study_records import StudyRecords

if TYPE_CHECKING:
    from lstm_optax.response import Response

POINTS = 120  # of a line, evenly spread over the decades of the steps
MARKED = 24  # points from a marker to the next


@dataclass(frozen=True)
class Panel:
    """One measurement: its axes, and the points of an optimizer's line."""

    name: str
    title: str
    x: str
    y: str
    read: "Callable[[Response], tuple[ArrayLike, ArrayLike]]"
    log_y: bool
    includes: tuple[float, float]
    caption: str


def measure_responses(study: StudyRecords) -> tuple[list["Response"], list[str]]:
    """Measure the optimizers that have one of the library's names; return also all other names.

    An optimizer is measured with its hyper-parameters in the study, the chosen ones if there are
    any, except the learning rate, which is the unit of the steps.
    """
    from lstm_optax.response import explain

    measured, others = [], []
    for name in study.optimizers:
        try:
            check_optimizer(name)
            known = hyper_parameters_of(name)
            given = {key: v for key, v in _settings_of(study, name).items() if key in known}
            factory = partial(find_factory(name, given=given), **given)
            measured.append(explain(factory, name=name))
        except ValueError:
            others.append(name)
    return measured, others


def _settings_of(study: StudyRecords, name: str) -> dict[str, Any]:
    shared = study.study["settings"].get("settings", {})
    if study.study["kind"] == "compare":
        shared = shared.get(name, {})
    choice = study.choices.get(name)
    return dict(shared) | dict(choice["hyper"] if choice else {})


def response_pictures(responses: Sequence["Response"], looks: Looks) -> list[Picture]:
    """Return a chart for each measurement; none without responses."""
    return [_picture(panel, responses, looks) for panel in PANELS] if responses else []


def _picture(panel: Panel, responses: Sequence["Response"], looks: Looks) -> Picture:
    rows = [row for place, found in enumerate(responses) for row in _rows(panel, found, place)]
    firsts = {row["series"]: row["y"] for row in reversed(rows)}
    words = "; ".join(f"{name} {value:.4g}" for name, value in firsts.items())
    return Picture(
        name=f"response_{panel.name}",
        title=panel.title,
        caption=panel.caption,
        description=f"Lines of {panel.y} against {panel.x}. First values: {words or 'none'}.",
        chart=_chart(panel, rows, looks),
        rows={"responses": rows},
        height=240,
    )


def _chart(panel: Panel, rows: Sequence[Record], looks: Looks) -> Drawing:
    values = [row["y"] for row in rows]
    low, high = min([*values, panel.includes[0]]), max([*values, panel.includes[1]])
    up = alt.Scale(
        type="log" if panel.log_y else "linear", domain=[low, high], nice=not panel.log_y
    )
    ends = [row["x"] for row in rows] or [1.0]
    across = alt.Scale(type="log", domain=[min(ends), max(ends)], nice=False)
    marks = number_axis(low, high) if panel.log_y else number_axis()
    base = only_shown(alt.Chart(alt.NamedData("responses"))).encode(
        x=alt.X("x:Q", title=panel.x, scale=across, axis=number_axis(min(ends), max(ends))),
        y=alt.Y("y:Q", title=panel.y, scale=up, axis=marks),
        color=looks.color(),
    )
    lines = base.mark_line().encode(strokeDash=looks.dash(), strokeWidth=looks.width())
    points = (
        base.transform_filter("datum.marked")
        .mark_point(filled=True, size=50, opacity=1)
        .encode(
            shape=looks.shape(),
            tooltip=["series:N", "x:Q", alt.Tooltip("y:Q", title="value", format=".4~g")],
        )
    )
    return alt.layer(lines, points)


def _rows(panel: Panel, response: "Response", place: int) -> list[Record]:
    """Return the points of a line; those with a marker differ between lines that overlap."""
    x, y = (np.asarray(values, np.float64) for values in panel.read(response))
    shown = np.isfinite(y) & ((y > 0) | (not panel.log_y))
    pairs = zip(x[shown].tolist(), y[shown].tolist(), strict=True)
    return [
        {"series": response.name, "x": rounded(a), "y": rounded(b)}
        | {"marked": (i + 7 * place) % MARKED == MARKED // 2}
        for i, (a, b) in enumerate(pairs)
    ]


def _over_steps(steps: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """Return step numbers and steps, at most POINTS, evenly spread over the decades."""
    steps = np.asarray(steps, np.float64)
    if steps.size == 0:
        return steps, steps
    places = np.unique(np.geomspace(1, steps.size, POINTS).round().astype(int))
    return places, steps[places - 1]


PANELS = (
    Panel(
        "constant",
        "A constant gradient of 1",
        "step number",
        "step, in learning rates",
        lambda response: _over_steps(response.constant),
        False,
        (0, 1),
        "The warm-up of the moments, and the steady step.",
    ),
    Panel(
        "impulse",
        "A gradient of 1, then zeros",
        "step number",
        "step, in learning rates",
        lambda response: _over_steps(response.impulse),
        False,
        (0, 1),
        "The memory of a single gradient.",
    ),
    Panel(
        "spike",
        "A gradient of 1,000 among 1s",
        "step number, the spike's is 1",
        "|step| ÷ step without the spike",
        lambda response: _over_steps(np.abs(response.spike.relative)),
        True,
        (0.5, 2),
        "1: the spike has no effect, or is forgotten.",
    ),
    Panel(
        "scale",
        "The first step against the gradient's size",
        "gradient",
        "|first step|, in learning rates",
        lambda response: (response.scale.inputs, np.abs(response.scale.outputs)),
        True,
        (0.1, 10),
        "Flat: the step does not depend on the size of the gradient.",
    ),
    Panel(
        "rate",
        "The learning rate cut to a tenth",
        "step number, from the cut on",
        "step ÷ step without the cut",
        lambda response: _over_steps(np.abs(response.rate.relative) if response.rate else []),
        True,
        (0.08, 1.25),
        "0.1 from the first step on: the cut acts at once.",
    ),
)
