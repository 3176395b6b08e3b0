"""A task: what is trained, and how the result is judged, independent of the optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.checks import check_integer, format_value
from lstm_optax.training.batches import check_batch
from lstm_optax.trees import describe_leaf


@dataclass(frozen=True)
class Task:
    """What `sweep` and `compare` train: functions of the parameters, and how to judge them.

    Every function is pure. `init`, `loss` and `evaluate` are compiled, so they contain no Python
    branch on values; `batches` runs on the host and returns NumPy arrays.

    Attributes:
      name: a short name, for tables and records.
      init: key → parameters, any tree of arrays.
      loss: (params, carry, batch, key) → (mean loss, new carry), as for `make_step`.
      batches: (position, seed) → batch, for positions 0, 1, 2, …; all batches have the same
        structure, shapes and dtypes.
      evaluate: params → metrics by name, scalars; with `metric` and `test_metric` among them.
      initial_carry: () → the carry before the first batch; by default there is none.
      steps: default number of training steps, a multiple of `eval_every`.
      eval_every: default number of steps between evaluations.
      metric: the metric that selects hyper-parameters, on validation data.
      test_metric: the metric that is reported, on test data.
      larger_is_better: whether both metrics should rise.
      target: a value of `metric` that counts as solved; None for none.
      baselines: scores of simple predictions of the test data, by name, to compare with.
      settings: what the task depends on, as JSON; a study resumes only with equal settings.
    """

    name: str
    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]
    batches: Callable[[int, int], Any]
    evaluate: Callable[[Any], Mapping[str, jax.Array]]
    initial_carry: Callable[[], Any] = tuple
    steps: int = 1000
    eval_every: int = 100
    metric: str = "validation"
    test_metric: str = "test"
    larger_is_better: bool = False
    target: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ValueError for the first field that is not what the class documents.

        The functions are traced, not run, except `batches`, which is called for two positions.
        """
        for name in ("init", "loss", "batches", "evaluate", "initial_carry"):
            if not callable(getattr(self, name)):
                shown = format_value(getattr(self, name))
                raise ValueError(f"{name} of the task is {shown}, but must be a function")
        check_integer("eval_every", self.eval_every, 1)
        if check_integer("steps", self.steps, 1) % self.eval_every:
            raise ValueError(
                f"steps is {self.steps}, but must be a multiple of eval_every, {self.eval_every}"
            )
        key = jax.eval_shape(lambda: jax.random.key(0))
        params = jax.eval_shape(self.init, key)
        self._check_metrics(jax.eval_shape(self.evaluate, params))
        first, second = self.batches(0, 0), self.batches(1, 0)
        check_batch("batches(0, 0)", first)
        if _shapes(first) != _shapes(second):
            raise ValueError(
                f"batches(0, 0) has {_shapes(first)}, but batches(1, 0) has {_shapes(second)}; "
                "all batches must have the same structure, shapes and dtypes"
            )
        carry = jax.eval_shape(self.initial_carry)
        result = jax.eval_shape(self.loss, params, carry, first, key)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ValueError("loss must return (mean loss, new carry), a tuple of two")
        mean: Any = result[0]
        dtype: Any = getattr(mean, "dtype", None)
        if getattr(mean, "shape", None) != () or not jnp.issubdtype(dtype, jnp.floating):
            shown = describe_leaf(mean)
            raise ValueError(f"loss returned {shown} as mean loss, but must return a scalar float")
        if _shapes(result[1]) != _shapes(carry):
            raise ValueError(
                f"loss returned a carry of {_shapes(result[1])}, but initial_carry() has "
                f"{_shapes(carry)}"
            )

    def _check_metrics(self, metrics: Any) -> None:
        if not isinstance(metrics, Mapping):
            raise ValueError("evaluate must return a dictionary of metrics by name")
        for name in (self.metric, self.test_metric):
            if name not in metrics:
                raise ValueError(
                    f"evaluate returns {', '.join(map(repr, metrics))}, but not {name!r}, which "
                    "the task names as its metric"
                )
        for name, value in metrics.items():
            if getattr(value, "shape", None) != ():
                raise ValueError(f"metric {name!r} is {describe_leaf(value)}, but must be a scalar")


def _shapes(tree: Any) -> str:
    """Return structure, shapes and dtypes of a tree as text."""
    return str(jax.tree.map(lambda x: f"{np.shape(x)} {np.result_type(x)}", tree))
