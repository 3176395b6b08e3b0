"""What an interval measured, and which record is the best."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_optax.training.state import TrainState
from lstm_optax.transforms import eval_params, observe
from lstm_optax.transforms.evaluation import is_averaging

Record = dict[str, Any]
"""What an interval measured: step, seconds, train_loss, grad_norm, clipped, refused,
learning_rate, val_loss and other metrics of the evaluation, averaging."""


def best_record(
    history: Sequence[Record], metric: str = "loss", *, larger_is_better: bool = False
) -> Record | None:
    """Return the record with the best finite validation metric, None if there is none.

    Args:
      history: the records; one without the metric is passed over.
      metric: its name in the evaluation; records have it as "val_" and the name.
      larger_is_better: whether the best is the largest, and not the smallest.
    """
    name = f"val_{metric}"
    finite = [r for r in history if r.get(name) is not None and np.isfinite(r[name])]
    choose = max if larger_is_better else min
    return choose(finite, key=lambda r: r[name], default=None)


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
            opt_state=observe(state.opt_state, told)
        )

    def _check_name(self, names: Any) -> None:
        if self.metric not in names:
            raise ValueError(
                f"metric is {self.metric!r}, but the evaluation returns {', '.join(names)}; name "
                "the one that decides, and with it larger_is_better"
            )


def _number(name: str, value: Any) -> float:
    if np.shape(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise ValueError(f"evaluate returned {value!r} for {name!r}; expected a number")
    return float(value)
