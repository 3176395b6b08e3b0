"""The chart of the metric against the learning rate, with diverged trials marked."""

import math
from collections.abc import Sequence

import altair as alt

from lstm_optax.records import Record
from lstm_optax.report.looks import Looks, number_axis, y_scale
from lstm_optax.report.picture import Drawing, Picture, only_shown, rounded
from lstm_optax.studies.comparison import OptimizerSummary
from lstm_optax.studies.outcomes import Metric, has_diverged, has_ended, value_at_end
from lstm_optax.studies.sensitivity import RATE, Sensitivity
from lstm_optax.studies.study_records import StudyRecords, TrialRecords

WIDE = 20  # largest value over smallest, above which the axis is logarithmic
EDGE = 80  # pixels at the edge for the marks of diverged trials, at most
SPACING = 9  # pixels between the marks of two optimizers, at most


def rate_pictures(
    study: StudyRecords, summaries: Sequence[OptimizerSummary], metric: Metric, looks: Looks
) -> list[Picture]:
    """Return the chart of the tuning trials; none if fewer than two rates were tried."""
    found = {s.optimizer: s.sensitivity for s in summaries if s.sensitivity is not None}
    if max((len(sensitivity.rates) for sensitivity in found.values()), default=0) < 2:
        return []
    lines = [row for name, s in found.items() for row in _line(name, s)]
    points = [row for s in summaries for row in _points(study, s, metric)]
    lost = [row for name, s in found.items() for row in _lost(name, s, metric, looks)]
    ranges = [row for name, s in found.items() for row in _range(name, s)]
    side = "lower" if metric.larger_is_better else "upper"
    words = "; ".join(
        f"{name} best at {s.best_rate:.3g}, diverged at {', '.join(_lost_rates(s)) or 'none'}"
        for name, s in found.items()
        if s.best_rate is not None
    )
    return [
        Picture(
            name="metric_against_learning_rate",
            title=f"{metric.name.capitalize()} against the learning rate",
            caption=(
                "Points: tuning trials. Line: their mean. Thick segment: the rates within 5 % of "
                f"the best. Cross at the {side} edge: a rate at which trials diverged."
            ),
            description=f"Lines of the final {metric.name} against the learning rate. {words}.",
            chart=_chart(
                [r for s in found.values() for r in s.rates], lines, points, metric, looks
            ),
            rows={"lines": lines, "trials": points, "lost": lost, "ranges": ranges},
            height=360,
        )
    ]


def _chart(
    rates: Sequence[float],
    lines: Sequence[Record],
    points: Sequence[Record],
    metric: Metric,
    looks: Looks,
) -> Drawing:
    values = [row["value"] for row in (*lines, *points)]
    wide = bool(values) and min(values) > 0 and max(values) / min(values) > WIDE
    scale = y_scale(wide)
    ends = min(rates), max(rates)
    margin = (ends[1] / ends[0]) ** 0.03
    across = alt.Scale(type="log", domain=[ends[0] / margin, ends[1] * margin], nice=False)
    x = alt.X("rate:Q", title="learning rate", scale=across, axis=number_axis(*ends))
    marks = number_axis(min(values), max(values)) if wide else number_axis()
    y = alt.Y("value:Q", title=f"final {metric.name}", scale=scale, axis=marks)

    def layer(name: str) -> alt.Chart:
        return only_shown(alt.Chart(alt.NamedData(name))).encode(x=x, color=looks.color())

    tooltip = ["series:N", alt.Tooltip("rate:Q", format=".3~g")]
    line = layer("lines").mark_line(strokeWidth=2).encode(y=y, strokeDash=looks.dash())
    near = layer("ranges").mark_rule(strokeWidth=9, opacity=0.28).encode(y=y, x2="high:Q")
    trials = (
        layer("trials")
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(
            y=y,
            shape=looks.shape(),
            tooltip=[*tooltip, "seed:N", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    lost = (
        layer("lost")
        .mark_text(text="✕", fontSize=14, fontWeight="bold", baseline="middle")
        .encode(
            y=alt.Y("place:Q", scale=None, axis=None),
            tooltip=[*tooltip, alt.Tooltip("diverged:Q", title="diverged trials")],
        )
    )
    return alt.layer(alt.layer(near, line, trials), lost).resolve_scale(y="independent")


def _line(name: str, found: Sensitivity) -> list[Record]:
    pairs = zip(found.rates, found.values, strict=True)
    return [
        {"series": name, "rate": rate, "value": rounded(value)}
        for rate, value in pairs
        if math.isfinite(value)
    ]


def _points(study: StudyRecords, summary: OptimizerSummary, metric: Metric) -> list[Record]:
    """Return the tuning trials on the curve that ended and did not diverge."""

    def is_on_curve(trial: TrialRecords) -> bool:
        chosen = summary.hyper
        others = [name for name in trial.hyper if name != RATE]
        same = chosen is None or all(trial.hyper[n] == chosen.get(n) for n in others)
        wanted = trial.optimizer == summary.optimizer and trial.part == "tuning"
        return wanted and same and has_ended(trial) and not has_diverged(trial, metric)

    return [
        {
            "series": trial.optimizer,
            "rate": trial.hyper[RATE],
            "value": rounded(value_at_end(trial, metric)),
            "seed": trial.seed,
        }
        for trial in study.trials.values()
        if is_on_curve(trial)
    ]


def _lost(name: str, found: Sensitivity, metric: Metric, looks: Looks) -> list[Record]:
    """Return a mark at the bad edge for each rate with diverged trials, in pixels from the top."""
    place = 4 + looks.names.index(name) * min(SPACING, EDGE / len(looks.names))
    return [
        {"series": name, "rate": rate, "diverged": count, "place": place}
        for rate, count in zip(found.rates, found.diverged, strict=True)
        if count
    ]


def _lost_rates(found: Sensitivity) -> list[str]:
    pairs = zip(found.rates, found.diverged, strict=True)
    return [f"{rate:.3g}" for rate, count in pairs if count]


def _range(name: str, found: Sensitivity) -> list[Record]:
    if found.best_rate is None or found.low is None or found.high is None:
        return []
    best = found.values[found.rates.index(found.best_rate)]
    return [{"series": name, "rate": found.low, "high": found.high, "value": rounded(best)}]
