"""Tasks that need a memory over many steps: adding, copying, temporal order, delayed XOR."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lstm_optax.checks import check_choice, check_integer
from lstm_optax.data import SequenceTask, adding, copy_memory, delayed_xor, temporal_order
from lstm_optax.lstm import init_chrono, init_forget_bias
from lstm_optax.tasks.lstm_model import make_model, mean_loss
from lstm_optax.tasks.task import Task

SEQUENCES: dict[str, Callable[[int], SequenceTask]] = {
    "adding": adding,
    "copy": copy_memory,
    "temporal_order": temporal_order,
    "delayed_xor": delayed_xor,
}
"""The data of each task, by name: length → task."""

Biases = Literal["zero", "one", "chrono"]

VALIDATION_SEED, TEST_SEED = 2**31, 2**31 + 1  # of streams that no trial trains on


def sequences(
    *,
    name: str = "adding",
    length: int = 50,
    hidden: int = 32,
    batch: int = 32,
    biases: Biases = "one",
    held_out: int = 256,
    steps: int = 2000,
    eval_every: int = 100,
) -> Task:
    """Return a task on synthetic sequences; each batch is new.

    The metrics are mean losses on held-out sequences. The target is the loss at which the task
    counts as solved, see `SequenceTask.solved`.

    Args:
      name: "adding", "copy", "temporal_order" or "delayed_xor".
      length: steps of the shortest dependency, as in `lstm_optax.data`.
      hidden: units of the LSTM layer.
      batch: sequences of a batch.
      biases: initial forget bias: "zero", "one", or "chrono", which also sets the input gate.
      held_out: sequences of the validation set, and of the test set.
      steps: training steps.
      eval_every: steps between evaluations.

    Raises:
      ValueError: an unknown name, or a size below 1.
    """
    check_choice("name", name, tuple(SEQUENCES))
    check_choice("biases", biases, ("zero", "one", "chrono"))
    settings: dict[str, Any] = dict(name=name, length=length, hidden=hidden, batch=batch)
    settings |= dict(biases=biases, held_out=held_out)
    for size in ("hidden", "batch", "held_out"):
        check_integer(size, settings[size], 1)
    data = SEQUENCES[name](length)
    held = [data(0, batch=held_out, seed=seed) for seed in (VALIDATION_SEED, TEST_SEED)]

    model = make_model(data.features, hidden, data.outputs, every_step=data.every_step)

    def init(key: jax.Array) -> Any:
        model_key, bias_key = jax.random.split(key)
        params = model.init(model_key)
        if biases == "chrono":
            return init_chrono(params, bias_key, max_time=data.length)
        return init_forget_bias(params, float(biases == "one"))

    def loss_of(params: Any, batch: Any) -> jax.Array:
        return mean_loss(model.apply(params, jnp.asarray(batch.inputs)), batch.targets)

    def loss(params: Any, carry: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        return loss_of(params, batch), carry

    def evaluate(params: Any) -> dict[str, jax.Array]:
        found = zip(("validation", "test"), held, strict=True)
        return {part: loss_of(params, held_batch) for part, held_batch in found}

    draw = partial(data, batch=batch)
    return Task(
        name=name,
        init=init,
        loss=loss,
        batches=lambda position, seed: draw(position, seed=seed),
        evaluate=evaluate,
        steps=steps,
        eval_every=eval_every,
        target=data.solved,
        baselines={"no memory": data.baseline},
        settings=settings,
    )
