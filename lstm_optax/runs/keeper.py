"""Write the records, gradients and checkpoints of a training."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from lstm_optax.runs.diagnosis import make_diagnose
from lstm_optax.runs.job import Job
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.runs.tables import PERPLEXITY_UNITS, perplexity
from lstm_optax.runs.update_ratio import make_update_ratio
from lstm_optax.training import Checkpoints, FitResult, TrainState, best_record
from lstm_optax.transforms import GuardState, find_states

Record = dict[str, Any]


class Diverged(ArithmeticError):
    """The loss was not finite, or the guard stopped; the message says at which step and why."""


class Keeper:
    """Writer of the records, gradients and checkpoints of a training.

    Args:
      job: the training.
      run: its folder.
      checkpoints: the checkpoints in the folder.
      on_record: called with each record after it is written.
    """

    def __init__(
        self,
        job: Job,
        run: RunFolder,
        checkpoints: Checkpoints,
        on_record: Callable[[Record], None],
    ):
        self.job: Job = job
        self.run: RunFolder = run
        self.checkpoints: Checkpoints = checkpoints
        self.on_record: Callable[[Record], None] = on_record
        self.diagnose: Callable | None = None
        self.update_ratio: Callable | None = None
        if job.config.diagnose:
            self.update_ratio = make_update_ratio(job)
            carry = job.model.lstm.initial_carry(job.config.batch)
            self.diagnose = make_diagnose(nnx.graphdef(job.model), carry, job.corpus.train(0))

    def keep(self, history: list[Record], state: TrainState) -> None:
        """Complete and write the last record of the history, and save a checkpoint.

        Raises:
          Diverged: the validation loss after the last step is not finite.
        """
        record = history[-1]
        step = record["step"]
        record["learning_rate"] = self._learning_rate(step, state)
        if f"nats per {self.job.corpus.unit}" in PERPLEXITY_UNITS:
            record["perplexity"] = perplexity(record["val_loss"])
        if self.diagnose and self.update_ratio:
            scalars, arrays = self.diagnose(state.params)
            record |= scalars
            ratios = self.update_ratio(state)
            self.run.gradients.append({"step": step} | arrays | {"update_ratio": ratios})
        self.run.records.append(record)
        finite = math.isfinite(record["val_loss"])
        if finite:
            self._save(step, state, history)
        self.on_record(record)
        # Before the last step, `fit` reports the divergence in the next step, in more detail.
        if not finite and step == self.job.config.steps:
            error = f"the validation loss after step {step} is not finite"
            raise self._divergence(error, record["learning_rate"])

    def finish(self, end: FitResult) -> None:
        """Save the state of a training that was interrupted or stopped by the guard.

        Raises:
          Diverged: the guard stopped the training.
        """
        step = int(end.state.step)
        stopped = end.reason == "gave_up"
        if (stopped or end.reason == "interrupted") and not self.checkpoints.is_whole(step):
            self._save(step, end.state, end.history)
        if stopped:
            raise self._divergence(end.detail, self._learning_rate(step, end.state))

    def divergence_at(self, step: int, error: str) -> Diverged:
        """Return the exception for a step that was not finite."""
        return self._divergence(error, self._learning_rate(step))

    def _save(self, step: int, state: TrainState, history: list[Record]) -> None:
        best = best_record(history)
        self.checkpoints.save(step, state, keep=best["step"] if best else None)

    def _learning_rate(self, step: int, state: TrainState | None = None) -> float:
        """Return the learning rate of a step; skipped steps do not advance the schedule."""
        guards = find_states(state, GuardState)
        skipped = max((int(guard.skipped) for guard in guards), default=0)
        return np.asarray(self.job.schedule(max(step - skipped, 1) - 1)).item()

    def _divergence(self, error: str, rate: float) -> Diverged:
        config, saved = self.job.config, self.checkpoints.steps()
        last = f"the checkpoint of step {saved[-1]} is kept" if saved else "no checkpoint was saved"
        remedies = [
            f"--learning-rate {config.learning_rate / 3:.2g}",
            *([] if config.warmup else [f"--warmup {max(config.steps // 20, 1)}"]),
            "a smaller --clip" if config.clip else "--clip 1",
        ]
        return Diverged(
            f"{error}; the learning rate was {rate:g}. Try {' or '.join(remedies)}; {last}"
        )
