"""The numbers of a response, from the steps of a run: settling times, spikes, slopes, the knee."""

from itertools import groupby

import numpy as np

from lstm_optax.response.responses import (
    Kind,
    RateResponse,
    ScaleRange,
    ScaleResponse,
    SpikeResponse,
)


def relative_steps(steps: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return steps / usual; 1 where both are 0, infinite where only the usual step is 0."""
    with np.errstate(all="ignore"):
        return np.where((steps == 0) & (usual == 0), 1.0, steps / usual)


def all_near(steps: np.ndarray, usual: float, tolerance: float) -> bool:
    """Return whether every step is within a relative tolerance of `usual`, which must be finite."""
    return bool(np.isfinite(usual) and np.all(np.abs(steps - usual) <= tolerance * abs(usual)))


def analyse_rate(relative: np.ndarray) -> RateResponse:
    """Return the response to a cut of the rate to a tenth.

    Args:
      relative: the steps from the cut on, divided by the steps without the cut.
    """
    return RateResponse(relative, float(relative[0]), settled_from(10 * relative))


def analyse_spike(
    relative: np.ndarray, at_larger: float, before: np.ndarray, after: np.ndarray
) -> SpikeResponse:
    """Return the response to a spike.

    Args:
      relative: the steps from the spike on, divided by the steps without the spike.
      at_larger: the first relative step of a spike 1,000 times as large.
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
        state_growth=_state_growth(before[changed], after[changed]),
    )


def settled_from(relative: np.ndarray) -> int | None:
    """Return the first index, from 1, from which on all values are within 10 % of 1."""
    # negated, so that NaN counts as off; 1e-6 allows for the rounding of 10 × 0.1
    off = np.flatnonzero(~(np.abs(relative - 1) <= 0.1 + 1e-6))
    if off.size == 0:
        return 1
    return None if off[-1] == len(relative) - 1 else int(off[-1]) + 2


def _state_growth(before: np.ndarray, after: np.ndarray) -> float:
    if before.size == 0:
        return float("nan")
    with np.errstate(all="ignore"):
        return float(np.max(after) / np.max(before))


def analyse_scale(inputs: np.ndarray, outputs: np.ndarray) -> ScaleResponse:
    """Return how the first steps (`outputs`) depend on the size of the gradients (`inputs`)."""
    with np.errstate(all="ignore"):
        slopes = np.diff(np.log10(np.abs(outputs))) / np.diff(np.log10(inputs))
    kinds: list[Kind] = [
        _slope_kind(*pair) for pair in zip(slopes, outputs, outputs[1:], strict=False)
    ]
    ranges: list[ScaleRange] = []
    for _, group in groupby(range(len(kinds)), key=kinds.__getitem__):
        places = list(group)
        low, high = inputs[places[0]], inputs[places[-1] + 1]
        ranges.append(ScaleRange(kinds[places[0]], float(low), float(high)))
    sizes = dict(zip(inputs.tolist(), np.abs(outputs), strict=True))
    return ScaleResponse(inputs, outputs, slopes, tuple(ranges), _find_knee(ranges, sizes))


def _slope_kind(slope: float, first: float, second: float) -> Kind:
    if not np.isfinite([first, second]).all():
        return "not finite"
    if first == second == 0:
        return "zero"
    if abs(slope - 1) < 0.02:
        return "proportional"
    return "flat" if abs(slope) < 0.02 else "between"


def _find_knee(ranges: list[ScaleRange], sizes: dict[float, float]) -> float:
    """Return the gradient at which the first proportional range meets the flat one after it.

    The proportional line through (low, size(low)) reaches the size of the flat range there.
    """
    straight = [r for r in ranges if r.kind != "between"]
    for below, above in zip(straight, straight[1:], strict=False):
        if (below.kind, above.kind) == ("proportional", "flat"):
            return float(sizes[above.high] * below.low / sizes[below.low])
    return float("nan")
