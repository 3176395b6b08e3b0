"""`range_test`: one run with a rising learning rate, which proposes the grid of a sweep."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lstm_optax.checks import FACTOR
from lstm_optax.records import Record
from lstm_optax.studies._sweep import make_budget, optimizer_name
from lstm_optax.studies.contender import optimizer_factory
from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import TUNING_SEED
from lstm_optax.studies.trial_program import Factory, start_trial
from lstm_optax.tasks import Task
from lstm_optax.training import NonFiniteError, TrainState, fit, make_step

INTERVALS = 50  # means of the loss over the ramp
FAR_ABOVE = 10.0  # times the lowest loss: the run ends
NEAR_LOWEST = 0.05  # share of the lowest loss above it: the rate still trains
SMALLEST_FALL = 0.01  # share of the first loss: a smaller fall is none
GRID_SIZE = 5
MEDIAN_OF = 5  # intervals


@dataclass(frozen=True)
class RangeTest:
    """The loss against a rising learning rate, and the grid that follows from it.

    Attributes:
      name: of the optimizer.
      rates: geometric mean of the learning rate in each interval of a few steps.
      losses: mean training loss of each interval.
      smoothed: running median of five losses, without lag; at both ends of fewer.
      unstable: the learning rate at which the loss was not finite or far above its lowest value;
        None if the ramp ended before.
      grid: five learning rates in steps of half a decade; empty if nothing can be proposed.
      reason: why nothing can be proposed; empty with a grid.
    """

    name: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    unstable: float | None
    grid: tuple[float, ...]
    reason: str


def range_test(
    task: Task,
    optimizer: str | Factory,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    clip: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    seed: int = TUNING_SEED,
    name: str | None = None,
) -> RangeTest:
    """Train once with a learning rate that rises exponentially, and propose a grid for a sweep.

        η(t) = low · (high / low)^(t / (steps − 1)),  t = 0, 1, …

    The largest rate of the grid is the largest rate at which the smoothed loss is within 5 % of its
    lowest value, rounded down to 1 or 3 times a power of ten; the grid ends two decades below it.
    The run ends when the loss is not finite, or above its first value and ten times its lowest one
    in two intervals in a row.

    The proposal is an upper estimate from one seed: the loss follows the rate with a delay, of
    about 1/(1 − β) steps with momentum β and longer from a small loss, while the rate rises by a
    factor of (high / low)^(1 / steps) in each step. The best rate of a long training is usually
    below the one at which a short one becomes unstable, so the grid extends downward.

    Args:
      task: what is trained.
      optimizer: a name that `explain` accepts, or a function of the keyword argument
        `learning_rate`, which is traced, as for `sweep`.
      low: the first learning rate.
      high: the last learning rate.
      steps: of the ramp, at least 20.
      clip: largest norm of the gradient, for an optimizer given by name; 0 for no clip.
      settings: hyper-parameters by name.
      seed: of the initial parameters, the batches and the dropout.
      name: of the optimizer; needed for a function without a name.

    Raises:
      ValueError: a rate that is not a positive number.
      StudyError: rates that do not rise, too few steps, or a task or an optimizer that does not
        work.
      OptionError: an unknown optimizer.

    Reference: Smith, 2017, arXiv:1506.01186, section 3.3.
    """
    FACTOR.check(low=low, high=high)
    if high <= low:
        raise StudyError(f"high is {high:g}, but must be above low, {low:g}")
    if make_budget(task, steps, 1).steps < 20:
        raise StudyError(f"steps is {steps}, but the ramp needs at least 20")
    name = optimizer_name(optimizer, name)
    options: dict[str, Any] = dict(schedule="constant", steps=steps, clip=clip, settings=settings)
    factory = optimizer_factory(optimizer, **options)

    def rate_at(step: Any) -> Any:
        return low * (high / low) ** (step / (steps - 1))

    history, failed_at = _train(task, name, factory, rate_at, steps, seed)
    ends = [0, *(record["step"] for record in history)]
    middles = [(first + last - 1) / 2 for first, last in zip(ends, ends[1:], strict=False)]
    rates = [rate_at(step) for step in middles]
    losses = [record["train_loss"] for record in history]
    smoothed = _running_median(losses)
    unstable = rate_at(failed_at - 1) if failed_at else None
    if unstable is None and _is_far_above(losses):
        unstable = rates[-2]
    grid, reason = _propose(rates, smoothed, unstable)
    columns = tuple(rates), tuple(losses), tuple(smoothed)
    return RangeTest(name, *columns, unstable, grid, reason)


def _train(
    task: Task,
    name: str,
    factory: Factory,
    rate_at: Callable[[Any], Any],
    steps: int,
    seed: int,
) -> tuple[list[Record], int | None]:
    """Return the record of each interval, and the step whose loss or gradient was not finite."""

    def init(rate: jax.Array) -> TrainState:
        return start_trial(task, factory(learning_rate=rate), seed)

    def step(state: TrainState, batch: Any) -> Any:
        optimizer = factory(learning_rate=rate_at(state.step))
        return make_step(task.loss, optimizer)(state, batch)

    try:
        state = jax.jit(init)(rate_at(0.0))
    except (ValueError, TypeError) as error:
        raise StudyError(f"{name} cannot train {task.name}: {error}") from error
    every = max(1, steps // INTERVALS)
    history: list[Record] = []

    def keep(records: list[Record], state: TrainState) -> None:
        history.append(records[-1])

    def should_stop() -> bool:
        return _is_far_above([record["train_loss"] for record in history])

    try:
        fit(
            step,
            state,
            lambda position: task.batches(position, seed),
            steps=steps,
            eval_every=every,
            steps_per_dispatch=every,
            on_record=keep,
            should_stop=should_stop,
        )
    except NonFiniteError as error:
        return history, error.step
    return history, None


def _is_far_above(losses: Sequence[float]) -> bool:
    """Return whether the last two losses are far above lowest and first one, or not numbers."""
    if len(losses) < 3:
        return False
    lowest = min(losses)
    bound = max(losses[0], lowest + (FAR_ABOVE - 1) * abs(lowest))
    return not any(loss <= bound for loss in losses[-2:])


def _running_median(losses: Sequence[float]) -> list[float]:
    half = MEDIAN_OF // 2
    windows = [losses[max(0, i - half) : i + half + 1] for i in range(len(losses))]
    return [float(np.median(window)) for window in windows]


def _propose(
    rates: Sequence[float], smoothed: Sequence[float], unstable: float | None
) -> tuple[tuple[float, ...], str]:
    """Return the grid, or no rates and the reason."""
    if len(smoothed) < MEDIAN_OF:
        return (
            (),
            f"the loss was far too high from the first rates on, {unstable:g}: pass a smaller low",
        )
    lowest = min(smoothed)
    if smoothed[0] - lowest <= SMALLEST_FALL * abs(smoothed[0]):
        return (), "the loss did not fall at any rate: train for more steps"
    bound = lowest + NEAR_LOWEST * abs(lowest)
    near = [rate for rate, loss in zip(rates, smoothed, strict=True) if loss <= bound]
    if unstable is None and near[-1] == rates[-1]:
        return (), "the loss was still at its lowest at the end of the ramp: pass a larger high"
    return _half_decades_below(near[-1]), ""


def _half_decades_below(rate: float) -> tuple[float, ...]:
    """Return five rates that are 1 or 3 times a power of ten, the last one at or below `rate`."""
    exponent = math.floor(math.log10(rate) + 1e-9)
    top = 2 * exponent + (rate >= (3 - 1e-9) * 10.0**exponent)  # counts half decades from 1
    halves = range(top - GRID_SIZE + 1, top + 1)
    return tuple(float(f"{3 if half % 2 else 1}e{half // 2}") for half in halves)
