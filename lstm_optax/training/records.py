"""What an interval measured, and which record is the best."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from lstm_optax.training.checks import check_same
from lstm_optax.training.state import TrainState
from lstm_optax.transforms import (
    ScaleByLearningRateState,
    eval_params,
    find_states,
    report_validation_loss,
)
from lstm_optax.transforms._eval_params import is_averaging

Record = dict[str, Any]
"""What an interval measured: step, seconds, train_loss, grad_norm, clipped, skipped, val_loss and
other metrics of the evaluation, averaging, learning_rate."""


def best_record(
    history: Sequence[Record], metric: str = "loss", *, larger_is_better: bool = False
) -> Record | None:
    """Return the record with the best finite validation metric, None if there is none.

    Args:
      history: the records; one without the metric is passed over.
      metric: its name in the evaluation; records have it as `"val_" + metric`.
      larger_is_better: whether the best is the largest, and not the smallest.
    """
    name = f"val_{metric}"
    finite = [r for r in history if r.get(name) is not None and np.isfinite(r[name])]
    choose = max if larger_is_better else min
    return choose(finite, key=lambda r: r[name], default=None)


def learning_rate(opt_state: optax.OptState) -> float | list[float] | None:
    """Return the learning rate of the last step, wherever the optimizer's state holds it.

    That is `scale_by_learning_rate`, which all optimizers of this library have, or else
    `optax.inject_hyperparams`. Where rates differ, all are returned; None where there is none.
    """
    found = [state.rate for state in find_states(opt_state, ScaleByLearningRateState)]
    if not found:
        injected = find_states(opt_state, optax.InjectStatefulHyperparamsState)
        found = [
            s.hyperparams["learning_rate"] for s in injected if "learning_rate" in s.hyperparams
        ]
    numbers = [str(number) for rate in jax.device_get(found) for number in np.ravel(rate)]
    rates = [float(number) for number in dict.fromkeys(numbers)]  # 0.001 for that of float32
    return rates[0] if len(rates) == 1 else rates or None


def replaced(new: Any, state: TrainState) -> TrainState:
    """Return the state that `on_record` returned, None for no change, in the dtypes of the old one.

    Raises:
      ValueError: it is no state, of another tree, or of another step.
    """
    if new is None:
        return state
    if not isinstance(new, TrainState):
        raise ValueError(
            f"on_record returned {type(new).__name__}; expected a TrainState, or None to go on "
            "with the one it was given"
        )
    if jax.tree.structure(new) == jax.tree.structure(state):
        new = jax.tree.map(_placed, new, state)
    check_same("the state that on_record returned", new, state, "change values, and nothing else")
    if int(new.step) != int(state.step):
        raise ValueError(f"on_record changed the step from {state.step} to {new.step}")
    return new


def _placed(new: Any, old: jax.Array) -> Any:
    """Return a copy of a leaf that changed, since training donates each buffer once."""
    if new is old:
        return old
    dtype = old.dtype if isinstance(new, int | float) else None
    return jax.device_put(jax.numpy.array(new, dtype), old.sharding)


class Judge(NamedTuple):
    """Evaluates a state, and decides which record is the best."""

    evaluate: Callable[[Any], Any] | None
    metric: str
    larger_is_better: bool

    def check(self, params: Any) -> None:
        """Raise ValueError where the names of the metrics are known and the deciding is not there.

        That is so for what `make_evaluate` returns; errors in its `measure` are raised, too.
        """
        if names := getattr(self.evaluate, "names", None):
            self._check_name(names(params))

    def best(self, history: Sequence[Record]) -> Record | None:
        """Return the best record so far."""
        return best_record(history, self.metric, larger_is_better=self.larger_is_better)

    def validated(self, state: TrainState) -> tuple[Record, TrainState]:
        """Return the part of a record on the validation, and the state that knows its result."""
        averaging = bool(is_averaging(state.opt_state))
        if self.evaluate is None:
            return {"val_loss": None, "averaging": averaging}, state
        found = self.evaluate(eval_params(state.opt_state, state.params))
        found = found if isinstance(found, Mapping) else {"loss": found}
        self._check_name(found)
        means = {name: _number(name, value) for name, value in found.items()}
        deciding = means[self.metric]
        told = -deciding if self.larger_is_better else deciding
        record = {f"val_{name}": value for name, value in means.items()}
        return record | {"averaging": averaging}, state._replace(
            opt_state=report_validation_loss(state.opt_state, told)
        )

    def _check_name(self, names: Any) -> None:
        if self.metric not in names:
            raise ValueError(
                f"metric is {self.metric!r}, but the evaluation returns "
                f"{', '.join(map(str, names)) or 'none'}; "
                "name the one that decides, and with it larger_is_better"
            )


def _number(name: str, value: Any) -> float:
    kinds = np.floating, np.integer  # also those of JAX, such as bfloat16
    dtype = np.asarray(value).dtype
    if np.shape(value) or not any(jax.numpy.issubdtype(dtype, kind) for kind in kinds):
        raise ValueError(f"evaluate returned {value!r} for {name!r}; expected a number")
    return float(value)
