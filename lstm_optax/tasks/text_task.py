"""A language model on the windows of a text as a task: the carry runs from window to window."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
from flax import nnx

from lstm_optax.data import Batch, Windows
from lstm_optax.models import LanguageModel, token_losses
from lstm_optax.tasks.task import Task
from lstm_optax.training.batches import stack_batches
from lstm_optax.training.evaluation import sum_over_batches

Batches: TypeAlias = Callable[[int, int], Batch]


def make_text_task(
    name: str,
    make_model: Callable[[jax.Array], LanguageModel],
    windows: Windows,
    held: Mapping[str, Windows],
    *,
    batches: Batches | None = None,
    **fields: Any,
) -> Task:
    """Return the task of training a language model on the windows of a text.

    The metrics are mean losses in nats per token, without dropout.

    Args:
      name: of the task.
      make_model: key → model with parameters as its only state.
      windows: of the training text.
      held: windows of the held-out texts, by the name of the metric.
      batches: (position, seed) → window; by default the windows in their order, for each seed.
      fields: other fields of the task.
    """
    batch = windows.rows.batch
    stacks = {part: stack_batches(list(found)) for part, found in held.items()}
    model = make_model(jax.random.key(0))
    graphdef, _ = nnx.split(model)

    def loss(params: Any, carry: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        model, rngs = nnx.merge(graphdef, params), nnx.Rngs(dropout=key)
        logits, carry = model(batch.inputs, carry, resets=batch.resets, rngs=rngs)
        total, count = token_losses(logits, batch.targets)
        return total / count, carry

    def measure(params: Any, carry: Any, batch: Any) -> Any:
        model = nnx.merge(graphdef, params)
        logits, carry = model(batch.inputs, carry, resets=batch.resets, deterministic=True)
        return token_losses(logits, batch.targets), carry

    def evaluate(params: Any) -> dict[str, jax.Array]:
        metrics, carry = {}, model.lstm.initial_carry(batch)
        for part, stacked in stacks.items():
            (totals, counts), _ = sum_over_batches(measure, params, carry, stacked)
            metrics[part] = totals.sum() / counts.sum()
        return metrics

    return Task(
        name=name,
        init=lambda key: nnx.split(make_model(key))[1],
        loss=loss,
        batches=batches or (lambda position, seed: windows(position)),
        evaluate=evaluate,
        initial_carry=lambda: model.lstm.initial_carry(batch),
        **fields,
    )
