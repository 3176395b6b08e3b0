"""How much the result of an optimizer depends on its learning rate, from its tuning trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lstm_optax.studies.outcomes import Metric, has_diverged, has_ended, value_at_end
from lstm_optax.studies.study_records import TrialRecords

RATE = "learning_rate"


@dataclass(frozen=True)
class Sensitivity:
    """The metric as a function of the learning rate.

    Attributes:
      rates: tried learning rates, rising.
      values: mean of the metric over the seeds; infinite where a seed diverged.
      diverged: number of diverged trials at each rate.
      best_rate: the rate of the best value; None if every rate had a diverged seed.
      low: lower end of the range of rates near the best; None with `best_rate`.
      high: its upper end.
      open_low: whether the range may reach further down than `low`.
      open_high: whether it may reach further up than `high`.
      area: mean of the clipped metric over the tried decades; None for one rate or without clip.
      diverged_share: of all tuning trials that ended, at all hyper-parameters.
    """

    rates: tuple[float, ...]
    values: tuple[float, ...]
    diverged: tuple[int, ...]
    best_rate: float | None
    low: float | None
    high: float | None
    open_low: bool
    open_high: bool
    area: float | None
    diverged_share: float

    @property
    def width(self) -> float | None:
        """Decades of the range of rates; a lower bound if an end is open."""
        if self.low is None or self.high is None:
            return None
        return math.log10(self.high) - math.log10(self.low)


def rate_sensitivity(
    trials: Sequence[TrialRecords],
    metric: Metric,
    *,
    hyper: Mapping[str, Any] | None = None,
    clip: float | None = None,
    tolerance: float = 0.05,
) -> Sensitivity | None:
    """Return how the metric depends on the learning rate; None if no tuning trial ended.

    A rate is near the best if value ≤ best + tolerance · |best| or, for a metric that should rise,
    value ≥ best − tolerance · |best|. The range is the one around the best rate; its ends are
    linear in log rate between two tried rates, and a rate at which a seed diverged is outside.
    It is open at the edge of the tried rates, and next to a rate whose trials were stopped early:
    those count with their last value.

    The area is ∫ min(value, clip) d log₁₀ rate by trapezoids, divided by the tried decades (max for
    a metric that should rise); a diverged trial counts as `clip`.

    Args:
      trials: of one optimizer; only tuning trials that ended count.
      metric: that selects hyper-parameters.
      hyper: the chosen ones: only trials that differ from them in the learning rate alone are on
        the curve. All trials by default.
      clip: the metric's limit in the area, equal for all optimizers of a comparison.
      tolerance: of the range, relative to the best value.
    """
    tuning = [trial for trial in trials if trial.part == "tuning" and has_ended(trial)]
    if not tuning:
        return None
    chosen = _without_rate(hyper) if hyper is not None else None
    curve: dict[float, list[TrialRecords]] = {}
    for trial in tuning:
        if chosen is None or _without_rate(trial.hyper) == chosen:
            curve.setdefault(float(trial.hyper[RATE]), []).append(trial)
    rates = sorted(curve)
    groups = [curve[rate] for rate in rates]
    means = [fmean(value_at_end(trial, metric) for trial in group) for group in groups]
    stopped = [any(_was_stopped(trial) for trial in group) for group in groups]
    best = min(range(len(rates)), key=lambda i: metric.cost(means[i]), default=None)
    low = high = None
    open_low = open_high = False
    if best is not None and math.isfinite(means[best]):
        costs = [metric.cost(mean) for mean in means]
        limit = costs[best] + tolerance * abs(costs[best])
        low, open_low = _range_end(rates, costs, stopped, best, -1, limit)
        high, open_high = _range_end(rates, costs, stopped, best, 1, limit)
    return Sensitivity(
        rates=tuple(rates),
        values=tuple(means),
        diverged=tuple(sum(has_diverged(trial, metric) for trial in group) for group in groups),
        best_rate=rates[best] if best is not None and low is not None else None,
        low=low,
        high=high,
        open_low=open_low,
        open_high=open_high,
        area=_area(rates, groups, metric, clip),
        diverged_share=fmean(has_diverged(trial, metric) for trial in tuning),
    )


def _without_rate(hyper: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in hyper.items() if name != RATE}


def _was_stopped(trial: TrialRecords) -> bool:
    return trial.end is not None and trial.end["status"] == "stopped"


def _range_end(
    rates: Sequence[float],
    costs: Sequence[float],
    stopped: Sequence[bool],
    best: int,
    direction: int,
    limit: float,
) -> tuple[float, bool]:
    """Return where the cost first exceeds a limit in one direction, and whether that is open."""
    inside = best
    while 0 <= inside + direction < len(rates) and costs[inside + direction] <= limit:
        inside += direction
    outside = inside + direction
    if not 0 <= outside < len(rates):
        return rates[inside], True
    share = (limit - costs[inside]) / (costs[outside] - costs[inside])
    start, stop = math.log10(rates[inside]), math.log10(rates[outside])
    return 10 ** (start + share * (stop - start)), stopped[outside]


def _area(
    rates: Sequence[float],
    groups: Sequence[Sequence[TrialRecords]],
    metric: Metric,
    clip: float | None,
) -> float | None:
    if len(rates) < 2 or clip is None or not math.isfinite(clip):
        return None
    clipped = [
        fmean(min(value_at_end(trial, metric), clip, key=metric.cost) for trial in group)
        for group in groups
    ]
    logs = [math.log10(rate) for rate in rates]
    pieces = [
        (stop - start) * (before + after) / 2
        for start, stop, before, after in zip(logs, logs[1:], clipped, clipped[1:], strict=False)
    ]
    return math.fsum(pieces) / (logs[-1] - logs[0])
