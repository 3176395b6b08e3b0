"""Trials on a task that needs a memory, trained at once, each with its own rate and seed."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_optax.data import Sequences, SequenceTask, adding, temporal_order
from lstm_optax.lstm import LSTM, init_chrono, init_forget_bias
from lstm_optax.models import SequenceModel, sequence_losses
from lstm_optax.optimizers import momentum_sgd, nadam
from lstm_optax.presets import graves
from lstm_optax.transforms import clip_by_global_norm

TaskName = Literal["adding", "temporal_order"]
Start = Literal["forget_bias_0", "forget_bias_1", "chrono"]
Trial = dict[str, Any]  # rate, seed, solved, solved_at, score, steps

TASKS = MappingProxyType({"adding": adding, "temporal_order": temporal_order})
HELD_OUT_SEED = 999_999  # seed of the sequences of the score


class TunedOptimizer(NamedTuple):
    """An optimizer, the grid of its learning rate, and its hyper-parameters for the records."""

    make: Callable[[Any], optax.GradientTransformation]
    rates: tuple[float, ...]
    hyper: dict[str, Any]


def _tuned(make, rates: tuple[float, ...], **hyper: Any) -> TunedOptimizer:
    clip = hyper.get("clip")
    others = {name: value for name, value in hyper.items() if name not in ("rule", "clip")}

    def optimizer(rate):
        links = [clip_by_global_norm(clip)] if clip else []
        return optax.chain(*links, make(rate, **others))

    return TunedOptimizer(optimizer, rates, hyper | {"rates": rates})


TUNED_OPTIMIZERS = MappingProxyType(
    {  # all three have a momentum of 0.9, since Graves' RMSprop and Nadam have it
        "sgd": _tuned(
            momentum_sgd, (0.1, 0.3, 1.0, 3.0), rule="momentum_sgd", clip=1.0, momentum=0.9
        ),
        "graves": _tuned(
            graves.rmsprop,
            (1e-3, 3e-3, 1e-2, 3e-2),
            rule="presets.graves.rmsprop",
            clip=None,
            decay=0.95,
            momentum=0.9,
            eps=1e-4,
        ),
        "nadam": _tuned(
            nadam, (1e-3, 3e-3, 1e-2, 3e-2), rule="nadam", clip=1.0, b1=0.9, b2=0.999, eps=1e-8
        ),
    }
)


class MemorySizes(Protocol):
    """The sizes of a configuration."""

    @property
    def length(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def check_every(self) -> int: ...
    @property
    def held_out(self) -> int: ...


class MemoryTrainer:
    """The vmapped training of several trials; it compiles once per number of trials.

    Args:
      task: a name in TASKS.
      optimizer: a name in TUNED_OPTIMIZERS.
      sizes: sizes of the sequences, the model, the batches and the steps.
    """

    def __init__(self, task: TaskName, optimizer: str, sizes: MemorySizes):
        self.task: SequenceTask = TASKS[task](sizes.length)
        self.optimizer: TunedOptimizer = TUNED_OPTIMIZERS[optimizer]
        self.sizes = sizes
        held_out = jax.device_put(self.task(0, batch=sizes.held_out, seed=HELD_OUT_SEED))
        graphdef, _ = nnx.split(_make_model(self.task, sizes.hidden, 0))

        def loss(params: Any, batch: Any) -> jax.Array:
            answers, _ = nnx.merge(graphdef, params)(batch.inputs)
            total, count = sequence_losses(answers, batch.targets)
            return total / count

        def step(params: Any, state: Any, rate: jax.Array, batch: Any):
            grads = jax.grad(loss)(params, batch)
            updates, state = self.optimizer.make(rate).update(grads, state, params)
            return optax.apply_updates(params, updates), state

        @partial(jax.jit, donate_argnums=(0, 1))
        def advance(params: Any, state: Any, rates: jax.Array, batches: Sequences):
            def body(trials, batch):
                params, state = trials
                return jax.vmap(step)(params, state, rates, batch), None

            (params, state), _ = jax.lax.scan(body, (params, state), batches)
            return params, state, jax.vmap(loss, in_axes=(0, None))(params, held_out)

        self._advance = advance

    def train(
        self,
        start: Start,
        pairs: Sequence[tuple[float, int]],
        *,
        steps: int | None = None,
        group_size: int | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> list[Trial]:
        """Train a trial for each (rate, seed), until all have solved the task.

        A seed determines the initial weights and the batches. A trial solves the task at the first
        check with a held-out score below `task.solved`; it continues to train with the others.

        Args:
          start: how the biases are initialized.
          pairs: rate and seed of each trial.
          steps: largest number of steps; that of the sizes by default.
          group_size: number of consecutive trials in a group; training ends as soon as all trials
            of one group have solved the task. By default all trials are one group.
          on_progress: called with a line of text after each check.
        """
        rates = jnp.asarray([rate for rate, _ in pairs], jnp.float32)
        states = [self._initial(start, *pair) for pair in pairs]
        params, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        every, solved_at = self.sizes.check_every, np.full(len(pairs), -1)
        step, scores = 0, np.full(len(pairs), math.nan)
        while step < (steps or self.sizes.steps):
            batches = self._batches(step, every, [seed for _, seed in pairs])
            params, state, scores = self._advance(params, state, rates, batches)
            step, scores = step + every, np.asarray(scores)
            solved_at[(solved_at < 0) & (scores < self.task.solved)] = step
            on_progress(f"step {step:,}, {(solved_at > 0).sum()} of {len(pairs)} solved")
            lost = np.isnan(scores)  # a NaN parameter stays NaN
            groups = (solved_at > 0).reshape(-1, group_size or len(pairs))
            if groups.all(axis=1).any() or ((solved_at > 0) | lost).all():
                break
        return [
            {
                "rate": rate,
                "seed": seed,
                "solved": bool(at > 0),
                "solved_at": int(at) if at > 0 else None,
                "score": float(score) if math.isfinite(score) else None,
                "steps": step,
            }
            for (rate, seed), at, score in zip(pairs, solved_at, scores, strict=True)
        ]

    def _initial(self, start: Start, rate: float, seed: int) -> tuple[Any, Any]:
        _, params = nnx.split(_make_model(self.task, self.sizes.hidden, seed))
        if start == "chrono":
            params = init_chrono(params, jax.random.key(seed), max_time=self.task.length)
        else:
            params = init_forget_bias(params, float(start[-1]))
        return params, self.optimizer.make(rate).init(params)

    def _batches(self, first: int, count: int, seeds: Sequence[int]) -> Sequences:
        """Return the next batches, [steps, trials, …]; trials of one seed have the same batches."""

        def stream(seed: int) -> list[Sequences]:
            steps = range(first, first + count)
            return [self.task(step, batch=self.sizes.batch, seed=seed) for step in steps]

        streams = {seed: stream(seed) for seed in dict.fromkeys(seeds)}
        return _stack([_stack([streams[seed][i] for seed in seeds]) for i in range(count)])


def _stack(batches: list[Sequences]) -> Sequences:
    return Sequences(*(np.stack(leaves) for leaves in zip(*batches, strict=True)))


def _make_model(task: SequenceTask, hidden: int, seed: int) -> SequenceModel:
    rngs = nnx.Rngs(seed)
    return SequenceModel(LSTM(task.features, hidden, rngs=rngs), task.outputs, rngs=rngs)
