"""Training until converged or out of steps."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.checks import whole
from lstm_optax.training.batches import BatchReader
from lstm_optax.training.checks import check_callable, check_kind
from lstm_optax.training.metrics import StepMetrics, means, zero_sums
from lstm_optax.training.records import Judge, Record, learning_rate, replaced
from lstm_optax.training.sharding import BatchSharding
from lstm_optax.training.state import TrainState
from lstm_optax.training.step import Step, run_steps, should_continue
from lstm_optax.transforms import eval_params


class NonFiniteError(ArithmeticError):
    """A step's loss or gradient was not finite.

    Attributes:
      step: the number of the step, counted from 1.
      loss: its loss.
      grad_norm: the norm of its gradient.
      leaf: the path of the parameter with the largest gradient, not-a-number counting as largest.
      largest: the largest absolute entry there.
    """

    def __init__(self, step: int, metrics: StepMetrics):
        sizes = jax.tree_util.tree_leaves_with_path(metrics.largest)
        path, size = max(sizes, key=lambda leaf: (np.isnan(leaf[1]), leaf[1]), default=((), 0.0))
        self.step = step
        self.loss: float = float(metrics.loss)
        self.grad_norm: float = float(metrics.grad_norm)
        leaf = jax.tree_util.keystr(path, simple=True, separator=".")
        self.leaf: str = leaf.removesuffix(".value")
        self.largest: float = float(size)
        fault = "was skipped, and the guard gives up" if metrics.gave_up else "is not finite"
        hint = "; a token or target out of range has this loss" if np.isnan(self.loss) else ""
        super().__init__(
            f"step {step} {fault}: loss {self.loss:g}, gradient norm {self.grad_norm:g}, "
            f"largest gradient {self.largest:g} in {self.leaf}{hint}"
        )


class FitResult(NamedTuple):
    """How a run ended."""

    state: TrainState
    history: list[Record]
    reason: str  # "steps", "patience", "interrupted" or "gave_up"
    detail: str = ""  # of "gave_up": at which step, its loss, and where the gradient was largest


def fit(
    step: Step,
    state: TrainState,
    batches: Callable[[int], Any],
    *,
    steps: int,
    evaluate: Callable[[Any], Any] | None = None,
    metric: str = "loss",
    larger_is_better: bool = False,
    eval_every: int = 100,
    patience: int | None = None,
    steps_per_dispatch: int = 8,
    sharding: BatchSharding | None = None,
    history: Sequence[Record] = (),
    on_progress: Callable[[int, float], None] = lambda step, loss: None,
    on_record: Callable[[list[Record], TrainState], TrainState | None] = lambda history, state: (
        None
    ),
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train: forward, loss, backward, update, until converged or out of steps.

    Where the optimizer keeps an average of the parameters, that is what is evaluated, by
    `eval_params`; and its triggers receive the deciding metric, by `report_validation_loss`.

    Where a `guard` in the optimizer gives up, the run ends with the state that it kept. Several
    steps run in one dispatch. Where dispatches end is a function of the step's number
    alone, so a run that is resumed from any record or interruption takes the same steps.

    Args:
      step: what `make_step` returns.
      state: where to begin; is donated, and must not be used again.
      batches: position → batch, for positions 0, 1, 2, …; a pure function. Each position is asked
        for once, in order, and all batches have the same structure, shapes and dtypes.
      steps: the step to end at, counted from the beginning of training, at least 0.
      evaluate: params → validation loss, or a dictionary of metrics by name; None for none.
      metric: the metric that decides: the one that `patience` and `report_validation_loss` follow.
      larger_is_better: whether that metric should rise; `report_validation_loss` receives its
        negative.
      eval_every: steps from record to record, at least 1.
      patience: end after so many evaluations without a new best value; None for never.
      steps_per_dispatch: most steps in one dispatch, at least 1.
      sharding: how devices share the rows of each batch; None for one device.
      history: the records of an earlier part of the run.
      on_progress: called with step and loss after each dispatch; the loss of a skipped step may be
        NaN.
      on_record: called with the history, a new record at its end, and the state to save with it;
        may return a state to go on with, in which values are changed, such as the learning rate.
      should_stop: asked after each dispatch; true ends the run, to be resumed later.

    Raises:
      NonFiniteError: a step's loss or gradient was not finite, and no `guard` in the optimizer
        skipped it; nothing after it was computed.
      ValueError: a count that is no whole number or too small, `patience` without `evaluate`, a
        batch without arrays or one that differs from the first, a metric that the evaluation does
        not return, a parameter of which the optimizer keeps two averages, or rows that the devices
        do not divide.
    """
    steps = whole("steps", steps, 0)
    eval_every = whole("eval_every", eval_every, 1)
    size = whole("steps_per_dispatch", steps_per_dispatch, 1)
    patience = None if patience is None else whole("patience", patience, 1)
    check_callable("step", step, "what make_step returns")
    check_callable("batches", batches, "a function position → batch")
    check_callable("on_progress", on_progress, "a function (step, loss), or leave it out")
    check_callable("on_record", on_record, "a function (history, state), or leave it out")
    check_callable("should_stop", should_stop, "a function without arguments, or leave it out")
    check_kind("state", state, TrainState, "what init_state returns")
    if sharding is not None:
        check_kind("sharding", sharding, BatchSharding, "a BatchSharding, or None")
    if patience and evaluate is None:
        raise ValueError(f"patience is {patience}, but evaluate is None: nothing can improve")
    judge = Judge(evaluate, metric, larger_is_better)
    if evaluate:  # errors are found now, and not at the first record
        check_callable("evaluate", evaluate, "a function params → loss, or None")
        judge.check(jax.eval_shape(eval_params, state.opt_state, state.params))
    state = sharding.state(state) if sharding else state
    reader, history = BatchReader(batches, size), list(history)
    began = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    now, position = int(state.step), int(state.position)
    while True:
        reason = _reason_to_end(now, steps, history, patience, judge, should_stop)
        if reason:
            return FitResult(state, history, reason)
        end = min(_next(now, size), _next(now, eval_every), steps)
        stacked = reader.read(position, end - now)
        stacked = sharding.batches(stacked) if sharding else stacked
        state, metrics = run_steps(step, state, stacked, end - now)
        metrics = jax.device_get(metrics)
        if not should_continue(metrics):
            error = NonFiniteError(int(state.step), metrics)
            if not metrics.gave_up:
                raise error
            return FitResult(state, history, "gave_up", str(error))
        position += end - now
        now = end
        on_progress(now, float(metrics.loss))
        if now % eval_every == 0 or now == steps:
            record = {"step": now, "seconds": 0.0} | means(jax.device_get(state.sums))
            validation, state = judge.validated(state)
            record |= validation | {"learning_rate": learning_rate(state.opt_state)}
            record["seconds"] = time.perf_counter() - began
            state = state._replace(sums=zero_sums())
            state = sharding.state(state) if sharding else state  # what is new in it, too
            history.append(record)
            state = replaced(on_record(history, state), state)
            position = int(state.position)


def _reason_to_end(now, steps, history, patience, judge, should_stop) -> str | None:
    if now >= steps:
        return "steps"
    best = judge.best(history)
    if patience and best and len(history) - 1 - history.index(best) >= patience:
        return "patience"
    return "interrupted" if should_stop() else None


def _next(now: int, every: int) -> int:
    return now - now % every + every
