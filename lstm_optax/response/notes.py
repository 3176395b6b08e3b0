"""Notes on a response: findings that are easily missed in the numbers."""

import numpy as np

from lstm_optax.response.responses import Response, SpikeResponse

MIN_DISTURBED = 5  # steps off by more than a factor of 2, for a note on clipping


def make_notes(measured: Response, why_no_rate: str, params_note: str) -> tuple[str, ...]:
    """Return the notes on a response.

    Args:
      measured: the response; its own notes are still empty.
      why_no_rate: why a cut of the learning rate could not be measured; "" if it was.
      params_note: a note on the parameters that it was measured on; "" for none.
    """
    notes = [
        _uphill_note(measured),
        _nonfinite_note(measured),
        _zero_steps_note(measured),
        _unsettled_note(measured),
        _parameter_note(measured),
        _late_clip_note(measured),
        _dtype_note(measured),
        f"A cut of the learning rate was not measured: {why_no_rate}." if why_no_rate else "",
        params_note,
    ]
    return tuple(note for note in notes if note)


def absorbed_spike(measured: Response) -> tuple[str, SpikeResponse | None]:
    """Return the spike that disturbs the most later steps, and its size; None if none does.

    A spike counts if a larger one makes no larger step, and several later steps are off by more
    than a factor of 2.
    """
    spikes = {"1,000": measured.spike, "−1,000": measured.counter_spike}
    absorbed = {s: r for s, r in spikes.items() if r.bounded and r.disturbed >= MIN_DISTURBED}
    return max(absorbed.items(), key=lambda item: item[1].disturbed, default=("", None))


def _late_clip_note(measured: Response) -> str:
    """Return a note if a clip after the optimizer would let the state absorb a spike.

    That is so if a larger spike makes no larger step, so a clip after the optimizer has little to
    clip, but the spike is absorbed.
    """
    size, spike = absorbed_spike(measured)
    if spike is None:
        return ""
    extremes = []
    if spike.smallest_after < 0.5:
        extremes.append(f"down to {spike.smallest_after:.2g}")
    if spike.largest_after > 2:
        extremes.append(f"up to {spike.largest_after:.3g}")
    return (
        f"Clipping the steps comes too late: a gradient of {size} makes a step "
        f"{spike.at_spike:.3g} times the usual one, and larger gradients make hardly larger steps, "
        f"but the spike stays in the state: {spike.disturbed:,} of the next "
        f"{len(spike.relative) - 1:,} steps are off by more than a factor of 2, "
        f"{' and '.join(extremes)} times the usual step. Clip the gradient, before the optimizer."
    )


def _uphill_note(measured: Response) -> str:
    steps = measured.constant[measured.constant != 0]
    if not (steps.size and steps[0] < 0):
        return ""
    return (
        "The first step goes up the gradient, as for a chain without a learning rate: the minus "
        "sign is in the link of the learning rate."
    )


def _zero_steps_note(measured: Response) -> str:
    late = measured.constant[len(measured.constant) // 2 :]
    zeros = int(np.sum(late == 0))
    if not zeros:
        return ""
    return (
        f"Under a constant gradient {zeros:,} of the last {len(late):,} steps are 0: a cut of the "
        "learning rate or a spike has no effect on those."
    )


def _parameter_note(measured: Response) -> str:
    expected = measured.constant[0] + measured.pull
    if not np.isfinite([expected, measured.at_one]).all():
        return ""
    if abs(measured.at_one - expected) <= 0.01 * max(abs(expected), abs(measured.at_one)):
        return ""
    return (
        f"The step depends on the parameter: the first step is {measured.constant[0]:.4g} at 0 and "
        f"{measured.at_one:.4g} at 1. All other measurements are at 0."
    )


def _nonfinite_note(measured: Response) -> str:
    runs = {
        "a constant gradient": measured.constant,
        "an impulse": measured.impulse,
        "gradients from 1e-12 to 1e12": measured.scale.outputs,
        "no gradient, with a parameter at 1": measured.pull,
    }
    bad = [name for name, steps in runs.items() if not np.isfinite(steps).all()]
    return f"Some steps are not finite: under {', '.join(bad)}." if bad else ""


def _unsettled_note(measured: Response) -> str:
    steps = measured.constant
    if measured.settled or not np.isfinite(steps).all():
        return ""
    late = steps[len(steps) // 2 :]
    return (
        f"The steps under a constant gradient have not settled: the last {len(late):,} are between "
        f"{late.min():.4g} and {late.max():.4g}."
    )


def _dtype_note(measured: Response) -> str:
    mixes = [
        f"{mix.parameter} parameters with {mix.gradient} gradients"
        for mix in measured.dtypes
        if mix.changes
    ]
    if not mixes:
        return ""
    return (
        f"The first update changes the dtype of the state for {' and '.join(mixes)}: jit compiles "
        "a second time, and scan raises an error."
    )
