"""The training loop: until converged or out of steps."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_optax.checks import check_callable, check_instance, check_integer
from lstm_optax.heap import release_freed_memory
from lstm_optax.training.batch_stream import batch_function
from lstm_optax.training.batches import BatchReader
from lstm_optax.training.metrics import StepMetrics, interval_means, zero_sums
from lstm_optax.training.records import Record, Validation, checked_state, rate_and_scale
from lstm_optax.training.rewind import Rewind, count_rewinds, rewind_run
from lstm_optax.training.sharding import BatchSharding
from lstm_optax.training.state import TrainState
from lstm_optax.training.step import Step, run_steps, should_continue
from lstm_optax.training.throughput import Throughput
from lstm_optax.training.update_ratio import named_ratios
from lstm_optax.transforms import eval_params


class NonFiniteError(ArithmeticError):
    """A step's loss or gradient was not finite.

    Attributes:
      step: the number of the step, counted from 1.
      loss: its loss.
      grad_norm: the norm of its gradient.
      leaf: the path of the parameter with the largest gradient; NaN counts as largest.
      largest: the largest absolute entry of its gradient.
      state: the state before the step, from which training can continue with other numbers.
    """

    def __init__(self, step: int, metrics: StepMetrics, state: TrainState):
        sizes = jax.tree_util.tree_leaves_with_path(metrics.largest)
        path, size = max(sizes, key=lambda leaf: (np.isnan(leaf[1]), leaf[1]), default=((), 0.0))
        self.step = step
        self.state: TrainState = state
        self.loss: float = float(metrics.loss)
        self.grad_norm: float = float(metrics.grad_norm)
        leaf = jax.tree_util.keystr(path, simple=True, separator=".")
        self.leaf: str = leaf.removesuffix(".value")
        self.largest: float = float(size)
        fault = "was skipped, too many in a row" if metrics.skipped else "is not finite"
        hint = "; a token or target out of range can cause this" if np.isnan(self.loss) else ""
        super().__init__(
            f"step {step} {fault}: loss {self.loss:g}, gradient norm {self.grad_norm:g}, "
            f"largest gradient {self.largest:g} in {self.leaf}{hint}"
        )


class FitResult(NamedTuple):
    """The result of a run."""

    state: TrainState
    history: list[Record]
    reason: str  # "steps", "patience", "interrupted", "gave_up" or "data"
    # "gave_up": the step, its loss, and the largest gradient; "data": which of several processes
    # has no further batch, if others have one
    detail: str = ""


def fit(
    step: Step,
    state: TrainState,
    batches: Callable[[int], Any] | Sequence[Any] | Iterable[Any],
    *,
    steps: int,
    evaluate: Callable[[Any], Any] | None = None,
    metric: str = "loss",
    larger_is_better: bool = False,
    eval_every: int = 100,
    patience: int | None = None,
    steps_per_dispatch: int = 8,
    sharding: BatchSharding | None = None,
    rewind: Rewind | None = None,
    history: Sequence[Record] = (),
    on_progress: Callable[[int, float], None] = lambda step, loss: None,
    on_record: Callable[[list[Record], TrainState], TrainState | None] = lambda history, state: (
        None
    ),
    checkpoint_every: int | None = None,
    on_checkpoint: Callable[[list[Record], TrainState], Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train: forward, loss, backward, update, until converged or out of steps.

    If the optimizer keeps an average of the parameters, the average is evaluated (`eval_params`),
    and its triggers receive the deciding metric (`report_validation_loss`).

    If a `guard` in the optimizer has skipped too many steps in a row, the run ends with the state
    that the guard kept. With `rewind` it returns to an earlier state instead, as after a step that
    is not finite without a guard; the records after that state are removed from the history.

    Several steps run in one dispatch. The step numbers at which dispatches end do not depend on
    where the run started, so a run that is resumed from any record or interruption takes the same
    steps.

    Args:
      step: the function that `make_step` returns.
      state: the state to start from; it is donated, and must not be used again.
      batches: position → batch, for positions 0, 1, 2, …, a pure function; or a sequence of
        batches, which begins again at its end; or an iterable of batches, see `BatchStream`. They
        are read in order, one dispatch ahead of the training, and all have the same structure,
        shapes and dtypes. If an iterator ends before the last step, so does the run, with reason
        "data"; of several processes, all end when one has no further batch.
      steps: the step to end at, counted from the beginning of training, at least 0.
      evaluate: params → validation loss, or a dictionary of metrics by name; None for none.
      metric: the deciding metric, used by `patience` and `report_validation_loss`.
      larger_is_better: whether that metric should rise; `report_validation_loss` receives its
        negative.
      eval_every: the number of steps between records, at least 1.
      patience: end after this many evaluations without a new best value; None for never.
      steps_per_dispatch: the largest number of steps in one dispatch, at least 1.
      sharding: how devices share the rows of each batch; None for one device.
      rewind: where to return to after a step that is not finite, and how often; None to end.
      history: the records of an earlier part of the run.
      on_progress: called with step and loss after each dispatch; the loss of a skipped step may be
        NaN.
      on_record: called with the history, whose last record is new, and the state to save with it.
        It may return a state with changed values, such as the learning rate, to continue with.
      checkpoint_every: the number of steps between calls of `on_checkpoint`, at least 1.
      on_checkpoint: called with the history and the state, which it may save, at each multiple of
        `checkpoint_every`; where there is a record as well, after `on_record`.
      should_stop: called after each dispatch; if it returns true, in any of several processes, the
        run ends and can be resumed.

    Raises:
      NonFiniteError: a step's loss or gradient was not finite, no `guard` in the optimizer skipped
        the step, and no rewind was left; no later step was computed. It has the state before the
        step.
      ValueError: a count that is not a whole number or too small, `patience` without `evaluate`,
        one of `checkpoint_every` and `on_checkpoint` without the other, a batch without arrays or
        one that differs from the first, an iterable that is at another position than the state, a
        metric that the evaluation does not return, two averages of one parameter in the optimizer,
        or a number of rows that the devices do not divide.
      RuntimeError: another process could not read its batches.
    """
    steps = check_integer("steps", steps, 0)
    eval_every = check_integer("eval_every", eval_every, 1)
    size = check_integer("steps_per_dispatch", steps_per_dispatch, 1)
    patience = None if patience is None else check_integer("patience", patience, 1)
    if (checkpoint_every is None) != (on_checkpoint is None):
        raise ValueError("checkpoint_every and on_checkpoint need each other: pass both or neither")
    if on_checkpoint is not None:
        checkpoint_every = check_integer("checkpoint_every", checkpoint_every, 1)
        check_callable("on_checkpoint", on_checkpoint, "a function (history, state)")
    cuts = (size, eval_every, *([checkpoint_every] if checkpoint_every else []))
    check_callable("step", step, "the function that make_step returns")
    source = batch_function(batches)
    check_callable("on_progress", on_progress, "a function (step, loss), or leave it out")
    check_callable("on_record", on_record, "a function (history, state), or leave it out")
    check_callable("should_stop", should_stop, "a function without arguments, or leave it out")
    check_instance("state", state, TrainState, "the state that init_state returns")
    if sharding is not None:
        check_instance("sharding", sharding, BatchSharding, "a BatchSharding, or None")
    if rewind is not None:
        check_instance("rewind", rewind, Rewind, "a Rewind, or None")
        rewind.check_optimizer(state.opt_state)
    if patience and evaluate is None:
        raise ValueError(f"patience is {patience}, but evaluate is None: nothing can improve")
    validation = Validation(evaluate, metric, larger_is_better)
    if evaluate:  # raise its errors now, not at the first record
        check_callable("evaluate", evaluate, "a function params → loss, or None")
        validation.check_names(jax.eval_shape(eval_params, state.opt_state, state.params))
    state = sharding.state(state) if sharding else state
    reader = BatchReader(source, size, jax.device_put)
    if sharding:
        reader = BatchReader(source, size, sharding.batches, sharding.in_each_process)
    history = list(history)
    started = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    now, position, throughput = int(state.step), int(state.position), Throughput()
    release_freed_memory()  # before the step is compiled, which needs much
    while True:
        reason = _end_reason(now, steps, history, patience, validation)
        if reason:
            return FitResult(state, history, reason)
        throughput.begin()
        wanted = _steps_of_dispatch(now, cuts, steps)
        dispatch = reader.read(position, wanted, stop=bool(should_stop()))
        if dispatch.count == 0:
            reason = "interrupted" if dispatch.stopped else "data"
            return FitResult(state, history, reason, dispatch.detail)
        batches, count = dispatch.batches, dispatch.count
        state, metrics = run_steps(step, state, batches, count, sharding=sharding)
        now, position = now + count, position + count
        # while the devices compute
        if not throughput.compiled:
            release_freed_memory()  # of the compilation
        reader.read_ahead(position, _steps_of_dispatch(now, cuts, steps))
        metrics = jax.device_get(metrics)  # waits for the dispatch
        throughput.end(count)
        if not should_continue(metrics):
            # the loop on the device stopped; only a skipped step is counted in the state
            failed = int(state.step) + (not metrics.skipped)
            error = NonFiniteError(failed, metrics, state)
            if rewind and count_rewinds(history, state) < rewind.times:
                state, history = rewind_run(rewind, error, history, position)
                now = int(state.step)
                continue
            if not metrics.skipped:
                raise error
            return FitResult(state, history, "gave_up", str(error))
        on_progress(now, float(metrics.loss))
        if now % eval_every == 0 or now == steps:
            record = {"step": now, "seconds": 0.0} | interval_means(jax.device_get(state.sums))
            # before on_record, so that a saved state has received its validation loss
            results, state = validation.evaluate_state(state)
            record |= results | rate_and_scale(state.opt_state)
            record["seconds"] = time.perf_counter() - started
            record["steps_per_second"] = throughput.take()
            record |= named_ratios(state.params, metrics.update_ratio)
            state = state._replace(sums=zero_sums())
            state = sharding.state(state) if sharding else state  # the new arrays as well
            history.append(record)
            state = checked_state(on_record(history, state), state)
            position = int(state.position)  # on_record may have changed it
        if checkpoint_every and on_checkpoint and now % checkpoint_every == 0:
            on_checkpoint(history, state)


def _end_reason(now, steps, history, patience, validation) -> str | None:
    if now >= steps:
        return "steps"
    best = validation.best(history)
    if patience and best and len(history) - 1 - history.index(best) >= patience:
        return "patience"
    return None


def _steps_of_dispatch(now: int, cuts: Sequence[int], steps: int) -> int:
    # dispatches end at multiples of all numbers, so a resumed run joins the same grid
    return min(steps - now, *(every - now % every for every in cuts))
