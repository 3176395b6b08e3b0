"""The records of a run: the metrics of each interval, its validation, and the best record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from lstm_optax.training.state import TrainState
from lstm_optax.transforms import (
    LossScalingState,
    ScaleByLearningRateState,
    ScaleByRateFactorState,
    eval_params,
    find_states,
    report_validation_loss,
)
from lstm_optax.transforms._eval_params import is_averaging
from lstm_optax.trees import check_same_tree

Record = dict[str, Any]
"""The metrics of an interval: step, seconds, train_loss, grad_norm, clipped, skipped, overflows,
carry_resets, rewinds, val_loss and other metrics of the evaluation, averaging, learning_rate,
steps_per_second, the update ratio of each matrix in the last step, and loss_scale if there is
one."""


def best_record(
    history: Sequence[Record], metric: str = "loss", *, larger_is_better: bool = False
) -> Record | None:
    """Return the record with the best finite validation metric; None if there is none.

    Args:
      history: the records; those without the metric are ignored.
      metric: the name that the evaluation returns; in a record it is `"val_" + metric`.
      larger_is_better: choose the largest value instead of the smallest.
    """
    name = f"val_{metric}"
    finite = [r for r in history if r.get(name) is not None and np.isfinite(r[name])]
    choose = max if larger_is_better else min
    return choose(finite, key=lambda r: r[name], default=None)


def current_learning_rate(opt_state: optax.OptState) -> float | list[float] | None:
    """Return the learning rate of the last step, from the optimizer's state.

    The state is that of `scale_by_learning_rate`, which all optimizers of this library have, or
    else that of `optax.inject_hyperparams`. A factor that rewinds have lowered is included. If
    there are several rates, all are returned; None if there is none.
    """
    found = [state.rate for state in find_states(opt_state, ScaleByLearningRateState)]
    if not found:
        injected = find_states(opt_state, optax.InjectStatefulHyperparamsState)
        found = [
            s.hyperparams["learning_rate"] for s in injected if "learning_rate" in s.hyperparams
        ]
    lowered = [s.rate_factor for s in find_states(opt_state, ScaleByRateFactorState)]
    # a rewind lowers all of them alike
    factor = np.ravel(jax.device_get(lowered[0]))[0] if lowered else np.float32(1)
    # through the text of the float32, so that 0.001 is recorded as 0.001
    texts = [str(number) for rate in jax.device_get(found) for number in np.ravel(rate * factor)]
    rates = [float(text) for text in dict.fromkeys(texts)]
    return rates[0] if len(rates) == 1 else rates or None


def rate_and_scale(opt_state: optax.OptState) -> Record:
    """Return the learning rate of a record, and the scale of the loss if there is one."""
    record: Record = {"learning_rate": current_learning_rate(opt_state)}
    scalings = find_states(opt_state, LossScalingState)
    return record | ({"loss_scale": float(scalings[0].scale)} if scalings else {})


def checked_state(new: Any, state: TrainState) -> TrainState:
    """Return the state that `on_record` returned, with the dtypes of `state`; None is no change.

    Raises:
      ValueError: it is not a state, has another tree, or another step.
    """
    if new is None:
        return state
    if not isinstance(new, TrainState):
        raise ValueError(
            f"on_record returned {type(new).__name__}; expected a TrainState, or None to continue "
            "with the unchanged state"
        )
    if jax.tree.structure(new) == jax.tree.structure(state):
        new = jax.tree.map(_copy_changed_leaf, new, state)
    check_same_tree("the state that on_record returned", new, state, "change only values")
    if int(new.step) != int(state.step):
        raise ValueError(f"on_record changed the step from {state.step} to {new.step}")
    return new


def _copy_changed_leaf(new: Any, old: jax.Array) -> Any:
    """Return a copy of a leaf that changed, since one buffer cannot be donated twice."""
    if new is old:
        return old
    dtype = old.dtype if isinstance(new, int | float) else None
    return jax.device_put(jax.numpy.array(new, dtype), old.sharding)


class Validation(NamedTuple):
    """The evaluation of a state, and the metric that decides which record is the best."""

    evaluate: Callable[[Any], Any] | None
    metric: str
    larger_is_better: bool

    def check_names(self, params: Any) -> None:
        """Raise ValueError if the evaluation is known not to return the deciding metric.

        The names are known for a function from `make_evaluate`; its `measure` is traced for them,
        and errors of that are raised, too.
        """
        if names := getattr(self.evaluate, "names", None):
            self._check_metric(names(params))

    def best(self, history: Sequence[Record]) -> Record | None:
        """Return the best record so far."""
        return best_record(history, self.metric, larger_is_better=self.larger_is_better)

    def evaluate_state(self, state: TrainState) -> tuple[Record, TrainState]:
        """Return the validation part of a record, and the state after its loss is reported."""
        averaging = bool(is_averaging(state.opt_state))
        if self.evaluate is None:
            return {"val_loss": None, "averaging": averaging}, state
        found = self.evaluate(eval_params(state.opt_state, state.params))
        found = found if isinstance(found, Mapping) else {"loss": found}
        self._check_metric(found)
        means = {name: _as_float(name, value) for name, value in found.items()}
        # a trigger waits for a fall
        loss = -means[self.metric] if self.larger_is_better else means[self.metric]
        record = {f"val_{name}": value for name, value in means.items()}
        return record | {"averaging": averaging}, state._replace(
            opt_state=report_validation_loss(state.opt_state, loss)
        )

    def _check_metric(self, names: Any) -> None:
        if self.metric not in names:
            raise ValueError(
                f"metric is {self.metric!r}, but the evaluation returns "
                f"{', '.join(map(str, names)) or 'none'}; "
                "name the one that decides, and set larger_is_better to match it"
            )


def _as_float(name: str, value: Any) -> float:
    kinds = np.floating, np.integer  # JAX's issubdtype also counts bfloat16
    dtype = np.asarray(value).dtype
    if np.shape(value) or not any(jax.numpy.issubdtype(dtype, kind) for kind in kinds):
        raise ValueError(f"evaluate returned {value!r} for {name!r}; expected a number")
    return float(value)
