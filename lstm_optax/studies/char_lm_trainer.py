"""Trials of character models by the recipe of AWD-LSTM, trained at once with rates and seeds."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_optax.lstm import LSTM
from lstm_optax.models import LanguageModel
from lstm_optax.optimizers import awd_sgd
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.corpus import Corpus
from lstm_optax.training import TrainState, init_state, make_step
from lstm_optax.training.evaluation import sum_over_batches
from lstm_optax.transforms import eval_params, report_validation_loss
from lstm_optax.transforms._eval_params import is_averaging

Course = Literal["constant", "cosine"]  # of the learning rate
Trial = dict[str, Any]  # rate, seed, steps, last, averaged, averaging_from


class CharLMSizes(Protocol):
    """The sizes of a configuration."""

    @property
    def embedding(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def eval_every(self) -> int: ...
    @property
    def clip(self) -> float: ...
    @property
    def nonmonotone(self) -> int: ...


class CharLMTrainer:
    """The vmapped training of several trials; it compiles once per number of trials.

    Args:
      corpus: the text for training and validation.
      sizes: sizes of the model and the training; `batch` is the batch size of the corpus.
    """

    def __init__(self, corpus: Corpus, sizes: CharLMSizes):
        self.corpus: Corpus = corpus
        self.sizes: CharLMSizes = sizes
        self.vocabulary: int = len(corpus.vocabulary)
        model = self._model(0)
        loss, measure = make_losses(nnx.graphdef(model))
        carry = model.lstm.initial_carry(sizes.batch)
        held_out = jax.device_put(jax.tree.map(lambda *x: np.stack(x), *corpus.validation))

        def validate(params: Any) -> jax.Array:
            (totals, counts), _ = sum_over_batches(measure, params, carry, held_out)
            return totals.sum() / counts.sum()

        def run_trial(course: Course, state: TrainState, rate: jax.Array, batches: Any):
            step = make_step(loss, self._optimizer(course, rate))
            state, _ = jax.lax.scan(lambda s, b: (step(s, b)[0], None), state, batches)
            last = validate(state.params)
            averaged = validate(eval_params(state.opt_state, state.params))
            state = state._replace(opt_state=report_validation_loss(state.opt_state, averaged))
            return state, last, averaged, is_averaging(state.opt_state)

        @partial(jax.jit, static_argnums=0, donate_argnums=1)
        def advance(course: Course, states: TrainState, rates: jax.Array, batches: Any):
            run_trials = jax.vmap(partial(run_trial, course), in_axes=(0, 0, None))
            return run_trials(states, rates, batches)

        self._advance, self._carry = advance, carry

    def train(
        self,
        course: Course,
        pairs: Sequence[tuple[float, int]],
        *,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> list[Trial]:
        """Train a trial for each (rate, seed), and validate its iterate and its average.

        A seed determines the initial weights. As in `fit`, `report_validation_loss` receives the
        loss of the average, which equals the iterate before the trigger.

        Args:
          course: course of the learning rate.
          pairs: rate and seed of each trial.
          on_progress: called with a line of text after each validation.
        """
        rates = jnp.asarray([rate for rate, _ in pairs], jnp.float32)
        states = [self._initial(course, *pair) for pair in pairs]
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        every, rows = self.sizes.eval_every, []
        for first in range(0, self.sizes.steps, every):
            windows = [self.corpus.train(first + i) for i in range(every)]
            batches = jax.tree.map(lambda *x: np.stack(x), *windows)
            state, *measured = self._advance(course, state, rates, batches)
            rows.append([np.asarray(m) for m in measured])
            on_progress(
                f"step {first + every:,}, loss {', '.join(f'{x:.3f}' for x in rows[-1][0])}"
            )
        last, averaged, averaging = (np.stack(column) for column in zip(*rows, strict=True))
        steps = [every * (i + 1) for i in range(len(rows))]
        return [
            {
                "rate": rate,
                "seed": seed,
                "steps": steps,
                "last": _finite_or_none(last[:, i]),
                "averaged": _finite_or_none(averaged[:, i]),
                "averaging_from": next(
                    (s for s, on in zip(steps, averaging[:, i], strict=True) if on), None
                ),
            }
            for i, (rate, seed) in enumerate(pairs)
        ]

    def _optimizer(self, course: Course, rate: Any) -> optax.GradientTransformationExtraArgs:
        schedule = rate
        if course == "cosine":
            schedule = optax.cosine_decay_schedule(rate, self.sizes.steps)
        return awd_sgd(
            schedule, clip=self.sizes.clip, weight_decay=0.0, nonmonotone=self.sizes.nonmonotone
        )

    def _model(self, seed: int) -> LanguageModel:
        rngs = nnx.Rngs(seed)
        lstm = LSTM(self.sizes.embedding, self.sizes.hidden, rngs=rngs)
        return LanguageModel(self.vocabulary, lstm, rngs=rngs)

    def _initial(self, course: Course, rate: float, seed: int) -> TrainState:
        _, params = nnx.split(self._model(seed))
        return init_state(params, self._optimizer(course, rate), self._carry, jax.random.key(seed))


def _finite_or_none(losses: np.ndarray) -> list[float | None]:
    return [float(loss) if math.isfinite(loss) else None for loss in losses]
