"""What the numbers say that is easily missed."""

import numpy as np

from lstm_optax.response.responses import Response

SEVERAL = 5  # steps off by more than a factor of 2, to speak of


def notes_on(measured: Response, why_no_rate: str, on_specimen: str) -> tuple[str, ...]:
    """The notes on what was measured.

    Args:
      measured: the response, its notes still empty.
      why_no_rate: why a change of the rate could not be measured, if so.
      on_specimen: what to say of the parameters it was measured on, if anything.
    """
    notes = [_uphill(measured), _unfinite(measured), _still(measured), _unsettled(measured)]
    notes += [_at_parameter(measured), _late_clip(measured), _moving_dtypes(measured)]
    if why_no_rate:
        notes.append(f"A change of the rate was not measured: {why_no_rate}.")
    notes.append(on_specimen)
    return tuple(note for note in notes if note)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), "")


def _late_clip(measured: Response) -> str:
    """That clipping the steps comes too late, where the state has swallowed the spike.

    However large the spike, the step stays as it is, so that a clip behind the rule sees little or
    nothing; and yet several later steps are off by more than a factor of 2.
    """
    spikes = {"1,000": measured.spike, "−1,000": measured.counter_spike}
    swallowed = {s: r for s, r in spikes.items() if r.bounded and r.disturbed >= SEVERAL}
    if not swallowed:
        return ""
    size, spike = max(swallowed.items(), key=lambda item: item[1].disturbed)
    extremes = []
    if spike.smallest_after < 0.5:
        extremes.append(f"down to {spike.smallest_after:.2g}")
    if spike.largest_after > 2:
        extremes.append(f"up to {spike.largest_after:.3g}")
    return (
        f"Clipping the steps comes too late: a gradient of {size} makes a step "
        f"{spike.at_spike:.3g} times the usual one, and a larger gradient hardly a larger step, "
        f"but the state has swallowed it: {spike.disturbed:,} of the next "
        f"{len(spike.relative) - 1:,} steps are off by more than a factor of 2, "
        f"{' and '.join(extremes)} times the usual. Clip the gradient, in front of the rule."
    )


def _uphill(measured: Response) -> str:
    steps = measured.constant[measured.constant != 0]
    if not (steps.size and steps[0] < 0):
        return ""
    return (
        "The first step goes up the gradient, as in a chain without learning rate, which has no "
        "minus sign yet."
    )


def _still(measured: Response) -> str:
    late = measured.constant[len(measured.constant) // 2 :]
    still = int(np.sum(late == 0))
    if not still:
        return ""
    return (
        f"Under a constant gradient {still:,} of the last {len(late):,} steps are 0: a cut of the "
        "rate or a spike can change nothing there."
    )


def _at_parameter(measured: Response) -> str:
    expected = measured.constant[0] + measured.pull
    if not np.isfinite([expected, measured.at_one]).all():
        return ""
    if abs(measured.at_one - expected) <= 0.01 * max(abs(expected), abs(measured.at_one)):
        return ""
    return (
        f"The step depends on the parameter: the first is {measured.constant[0]:.4g} at 0 and "
        f"{measured.at_one:.4g} at 1. All else was measured at 0."
    )


def _unfinite(measured: Response) -> str:
    runs = {
        "a constant gradient": measured.constant,
        "an impulse": measured.impulse,
        "gradients from 1e-12 to 1e12": measured.scale.outputs,
        "no gradient, with a parameter at 1": measured.pull,
    }
    bad = [what for what, steps in runs.items() if not np.isfinite(steps).all()]
    return f"Some steps are not finite: under {', '.join(bad)}." if bad else ""


def _unsettled(measured: Response) -> str:
    steps = measured.constant
    if measured.settled or not np.isfinite(steps).all():
        return ""
    late = steps[len(steps) // 2 :]
    return (
        f"Under a constant gradient it has not settled: the last {len(late):,} steps lie between "
        f"{late.min():.4g} and {late.max():.4g}."
    )


def _moving_dtypes(measured: Response) -> str:
    mixes = [
        f"{mix.parameter} parameters with {mix.gradient} gradients"
        for mix in measured.dtypes
        if mix.changes
    ]
    if not mixes:
        return ""
    return (
        f"The state changes its dtype at the first update for {' and '.join(mixes)}: a second "
        "compilation under jit, an error under scan."
    )
