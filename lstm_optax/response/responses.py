"""The records that `explain` returns: plain numbers and NumPy arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["proportional", "flat", "between", "zero", "not finite"]


@dataclass(frozen=True)
class RateResponse:
    """The steps after a cut of the learning rate to a tenth."""

    relative: np.ndarray
    """The steps from the cut on, each divided by the same step without the cut; [2000]."""

    next_step: float
    """The first relative step: .1 if the rate acts at once, as outside a velocity."""

    settled_after: int | None
    """The step, counted from 1, from which on all are within 10 % of .1; None if there is none."""


@dataclass(frozen=True)
class SpikeResponse:
    """The steps at and after one gradient of 1,000, or of −1,000, among gradients of 1."""

    relative: np.ndarray
    """The steps from the spike on, each divided by the same step without the spike; [10000]."""

    at_spike: float
    """The relative step at the spike, the first."""

    bounded: bool
    """Whether a spike 1,000 times as large makes a step less than twice as large."""

    smallest_after: float
    """The smallest later relative step; negative if a step changed its sign."""

    largest_after: float
    """The largest later relative step."""

    disturbed: int
    """The number of later steps that are off by more than a factor of 2, or changed their sign."""

    recovered_after: int | None
    """The number of steps until all later ones are within 10 % of 1; None if they never are."""

    state_growth: float
    """The factor by which the spike raised the largest entry of the state, over the float arrays
    that it changed; NaN if there are none."""


@dataclass(frozen=True)
class ScaleRange:
    """A range of gradients in which the first step depends on the gradient in one way."""

    kind: Kind
    low: float
    high: float


@dataclass(frozen=True)
class ScaleResponse:
    """The first step as a function of the size of the gradient."""

    inputs: np.ndarray
    """Gradients from 1e-12 to 1e12, two per decade; [49]."""

    outputs: np.ndarray
    """The first step for each; [49]."""

    slopes: np.ndarray
    """Decades of the step per decade of the gradient, between neighbouring gradients; [48]."""

    ranges: tuple[ScaleRange, ...]
    """Proportional where the slope is within .02 of 1, flat where it is within .02 of 0."""

    knee: float
    """The gradient at which the first proportional range and the flat one after it meet, such as
    the threshold of a clip; NaN if there are no such ranges."""


@dataclass(frozen=True)
class DtypeResponse:
    """The dtypes of update and state for one mix of parameter and gradient dtypes."""

    parameter: str
    gradient: str

    update: str
    """The dtype of the update, or the error that the mix raises."""

    state: tuple[str, ...]
    """The distinct dtypes of the state's float arrays before the first update."""

    state_after: tuple[str, ...]
    """The same after the first update."""

    changes: bool
    """Whether the first update changes any dtype or shape in the state."""


@dataclass(frozen=True)
class Response:
    """The responses of one transformation, measured by `explain`.

    A step is −update, so a step down the gradient is positive. Steps are in units of the learning
    rate if it is known.
    """

    name: str

    learning_rate: float | None
    """The unit of the steps; None if they are not scaled."""

    constant: np.ndarray
    """The steps under a constant gradient of 1; [20000]."""

    impulse: np.ndarray
    """The steps for one gradient of 1 and zeros after it; [100]."""

    steady_gain: float
    """The last step of `constant`."""

    settled: bool
    """Whether all of the last 10,000 steps are within 1 % of the steady gain."""

    rate: RateResponse | None
    """None if it could not be measured; a note says why."""

    spike: SpikeResponse
    """The response to a gradient of 1,000."""

    counter_spike: SpikeResponse
    """The response to a gradient of −1,000, opposite to the usual ones."""

    scale: ScaleResponse

    at_one: float
    """The first step of a parameter at 1 under a gradient of 1; all other runs are at 0."""

    pull: float
    """The first step of a parameter at 1 whose gradient is 0, usually from weight decay."""

    state_bytes: float
    """Bytes of state per parameter, for a float32 matrix of 1024 × 1024 or LSTM of 1024 units."""

    dtypes: tuple[DtypeResponse, ...]
    """Each mix of float32 and bfloat16."""

    notes: tuple[str, ...]
    """Findings that are easily missed, in a sentence or two each."""
