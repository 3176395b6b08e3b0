"""What was measured, as plain numbers and NumPy arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["proportional", "flat", "between", "zero", "not finite"]


@dataclass(frozen=True)
class RateResponse:
    """What a cut of the learning rate to a tenth does to the steps."""

    relative: np.ndarray
    """The steps from the cut on, each over the same step without the cut; [2000]."""

    next_step: float
    """The first of them: .1 if the rate acts at once, as it does outside the velocity."""

    settled_after: int | None
    """The step, counted from 1, from which on all stay within 10 % of .1; None if none does."""


@dataclass(frozen=True)
class SpikeResponse:
    """What one gradient of 1,000, or of −1,000, does among gradients of 1."""

    relative: np.ndarray
    """The steps from the spike on, each over the same step without it; [10000], the first at it."""

    at_spike: float
    """The first of them."""

    bounded: bool
    """Whether a spike 1,000 times as large in its place makes less than twice that step."""

    smallest_after: float
    """The smallest of the others; negative where a step turned round."""

    largest_after: float
    """The largest of the others."""

    disturbed: int
    """How many of the others are off by more than a factor of 2, or turned round."""

    recovered_after: int | None
    """Steps after the spike after which all stay within 10 % of 1; None if they never do."""

    state_growth: float
    """By what factor the largest entry of the state grew at the spike, among the arrays of floats
    that it changed; NaN if there are none."""


@dataclass(frozen=True)
class ScaleRange:
    """A range of gradients in which the first step depends on them in one way."""

    kind: Kind
    low: float
    high: float


@dataclass(frozen=True)
class ScaleResponse:
    """The first step against the size of the gradient."""

    inputs: np.ndarray
    """Gradients from 1e-12 to 1e12, two in a decade; [49]."""

    outputs: np.ndarray
    """The first step for each; [49]."""

    slopes: np.ndarray
    """Decades of the step in a decade of the gradient, between each gradient and the next; [48]."""

    ranges: tuple[ScaleRange, ...]
    """Proportional where the slope is within .02 of 1, flat where within .02 of 0."""

    knee: float
    """The gradient where the first proportional range and the flat one after it would meet, such
    as the threshold of a clip; NaN if there are none."""


@dataclass(frozen=True)
class DtypeResponse:
    """The dtypes that come of one mix of parameter's and gradient's dtype."""

    parameter: str
    gradient: str

    update: str
    """The dtype of the update, or the error that the mix raises."""

    state: tuple[str, ...]
    """The dtypes of the state's arrays of floats before the first update, each once."""

    state_after: tuple[str, ...]
    """The same after it."""

    changes: bool
    """Whether any dtype or shape in the state changes at the first update."""


@dataclass(frozen=True)
class Response:
    """What `explain` measured of one transformation.

    Steps are what a parameter loses: −update, so that a step down the gradient is positive. They
    are in units of the learning rate where there is one.
    """

    name: str

    learning_rate: float | None
    """The unit of the steps; None if they are as they come."""

    constant: np.ndarray
    """The steps under a gradient of 1; [20000], the first is the first step."""

    impulse: np.ndarray
    """The steps for one gradient of 1 and zeros after it; [100]."""

    steady_gain: float
    """The last of `constant`."""

    settled: bool
    """Whether all of the last 10,000 steps are within 1 % of that."""

    rate: RateResponse | None
    """None if it could not be measured; a note says why."""

    spike: SpikeResponse
    """A gradient of 1,000."""

    counter_spike: SpikeResponse
    """A gradient of −1,000, against the usual ones."""

    scale: ScaleResponse

    at_one: float
    """The first step of a parameter at 1 under a gradient of 1: all else is measured at 0."""

    pull: float
    """The first step of a parameter at 1 whose gradient is 0: weight decay, as a rule."""

    state_bytes: float
    """Bytes of state per parameter of a float32 matrix of 1024 × 1024, or LSTM of 1024 units."""

    dtypes: tuple[DtypeResponse, ...]
    """Each mix of float32 and bfloat16."""

    notes: tuple[str, ...]
    """What the numbers say that is easily missed, a sentence or two each."""
