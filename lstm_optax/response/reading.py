"""What the runs say in numbers: where steps settle, how a spike is taken, where a slope bends."""

from itertools import groupby

import numpy as np

from lstm_optax.response.responses import (
    Kind,
    RateResponse,
    ScaleRange,
    ScaleResponse,
    SpikeResponse,
)


def over(steps: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Each step over the usual one; 1 where both are 0, infinite where that one alone is."""
    with np.errstate(all="ignore"):
        return np.where((steps == 0) & (usual == 0), 1.0, steps / usual)


def near(steps: np.ndarray, usual: float, within: float) -> bool:
    """Whether all steps are the usual one but for that part of it; never if that is not finite."""
    return bool(np.isfinite(usual) and np.all(np.abs(steps - usual) <= within * abs(usual)))


def read_rate(relative: np.ndarray) -> RateResponse:
    """Read the steps after a cut of the rate to a tenth, each over the one without the cut."""
    return RateResponse(relative, float(relative[0]), settled_from(10 * relative))


def read_spike(
    relative: np.ndarray, at_larger: float, before: np.ndarray, after: np.ndarray
) -> SpikeResponse:
    """Read the steps from a spike on, each over the one without it.

    Args:
      relative: the steps.
      at_larger: the first of them at a spike 1,000 times larger.
      before: the largest entry of each array of the state before the spike.
      after: the same right after it.
    """
    rest = relative[1:]
    with np.errstate(invalid="ignore"):
        disturbed = int(np.sum(~((rest >= 0.5) & (rest <= 2))))
        changed = before != after
    settled = settled_from(relative[1:])
    return SpikeResponse(
        relative=relative,
        at_spike=float(relative[0]),
        bounded=bool(abs(at_larger) < 2 * abs(relative[0])),
        smallest_after=float(rest.min()),
        largest_after=float(rest.max()),
        disturbed=disturbed,
        recovered_after=None if settled is None else settled - 1,
        state_growth=_growth(before[changed], after[changed]),
    )


def settled_from(relative: np.ndarray) -> int | None:
    """The first place, counted from 1, from which on all are within 10 % of 1."""
    off = np.flatnonzero(~(np.abs(relative - 1) <= 0.1 + 1e-6))  # NaN is off, rounding is not
    if off.size == 0:
        return 1
    return None if off[-1] == len(relative) - 1 else int(off[-1]) + 2


def _growth(before: np.ndarray, after: np.ndarray) -> float:
    if before.size == 0:
        return float("nan")
    with np.errstate(all="ignore"):
        return float(np.max(after) / np.max(before))


def read_scale(inputs: np.ndarray, outputs: np.ndarray) -> ScaleResponse:
    """Read the first steps against the gradients."""
    with np.errstate(all="ignore"):
        slopes = np.diff(np.log10(np.abs(outputs))) / np.diff(np.log10(inputs))
    kinds: list[Kind] = [_kind(*pair) for pair in zip(slopes, outputs, outputs[1:], strict=False)]
    ranges: list[ScaleRange] = []
    for _, group in groupby(range(len(kinds)), key=kinds.__getitem__):
        places = list(group)
        low, high = inputs[places[0]], inputs[places[-1] + 1]
        ranges.append(ScaleRange(kinds[places[0]], float(low), float(high)))
    at = dict(zip(inputs.tolist(), np.abs(outputs), strict=True))
    return ScaleResponse(inputs, outputs, slopes, tuple(ranges), _knee(ranges, at))


def _kind(slope: float, first: float, second: float) -> Kind:
    if not np.isfinite([first, second]).all():
        return "not finite"
    if first == second == 0:
        return "zero"
    if abs(slope - 1) < 0.02:
        return "proportional"
    return "flat" if abs(slope) < 0.02 else "between"


def _knee(ranges: list[ScaleRange], at: dict[float, float]) -> float:
    """Where the first proportional range and the flat one next to it would meet."""
    straight = [r for r in ranges if r.kind != "between"]
    for below, above in zip(straight, straight[1:], strict=False):
        if (below.kind, above.kind) == ("proportional", "flat"):
            return float(at[above.high] * below.low / at[below.low])
    return float("nan")
