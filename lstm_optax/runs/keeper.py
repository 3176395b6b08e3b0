"""Write the records, gradients and checkpoints of a training."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import jax
import numpy as np
from flax import nnx

from lstm_optax.checkpoints import Checkpoints
from lstm_optax.checkpoints.agreement import Agreement
from lstm_optax.runs.diagnosis import make_diagnose
from lstm_optax.runs.job import Job
from lstm_optax.runs.memory import memory_in_use
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.runs.tables import PERPLEXITY_UNITS, perplexity
from lstm_optax.training import FitResult, NonFiniteError, TrainState, best_record
from lstm_optax.training.update_ratio import SUFFIX
from lstm_optax.transforms import (
    GuardState,
    LossScalingState,
    ScaleByRateFactorState,
    find_states,
)

Record = dict[str, Any]


class Diverged(ArithmeticError):
    """The loss was not finite, or the guard stopped; the message says at which step and why."""


class Keeper:
    """Writer of the records, gradients and checkpoints of a training.

    Args:
      job: the training.
      run: its folder.
      checkpoints: the checkpoints in the folder.
      on_record: called with the history and the state after a record is written.
      warn: called with a message after a rewind.
    """

    def __init__(
        self,
        job: Job,
        run: RunFolder,
        checkpoints: Checkpoints,
        on_record: Callable[[list[Record], TrainState], None],
        warn: Callable[[str], None],
    ):
        self.job: Job = job
        self.run: RunFolder = run
        self.checkpoints: Checkpoints = checkpoints
        self.on_record: Callable[[list[Record], TrainState], None] = on_record
        self.warn: Callable[[str], None] = warn
        self.diagnose: Callable | None = None
        if job.config.diagnose:
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
        record |= self._measure(record)
        if f"nats per {self.job.corpus.unit}" in PERPLEXITY_UNITS:
            record["perplexity"] = perplexity(record["val_loss"])
        if self.diagnose:
            scalars, arrays = self.diagnose(state.params)
            record |= scalars
            named = {name: value for name, value in record.items() if name.endswith(SUFFIX)}
            ratios = {name.removesuffix(SUFFIX): value for name, value in named.items()}
            self.run.gradients.append({"step": step} | arrays | {"update_ratio": ratios})
        self.run.records.append(record)
        finite = isfinite(record["val_loss"])
        if finite:
            self._save(step, state, history)
        self.on_record(history, state)
        # Before the last step, `fit` reports the divergence in the next step, in more detail.
        if not finite and step == self.job.config.steps:
            error = f"the validation loss after step {step} is not finite"
            raise self._divergence(step, error, record["learning_rate"])

    def save_between(self, history: list[Record], state: TrainState) -> None:
        """Save a checkpoint, except at a step with a record, where `keep` decides."""
        step = int(state.step)
        if not history or history[-1]["step"] != step:
            self._save(step, state, history)

    def rewind(self, error: NonFiniteError) -> TrainState:
        """Return the state of the last checkpoint that was saved at a record, or the first state.

        The record must have a finite validation loss. Later records are removed.

        Raises:
          CheckpointError: every checkpoint is damaged.
        """
        good, damaged = Agreement().from_first(self._good_steps), []
        if good:
            _, state, damaged = self.checkpoints.restore(error.state, prefer=good[-1])
        else:
            state = self.job.initial_state()
        step = int(state.step)
        for bad in damaged:
            self.warn(f"the checkpoint of step {bad} is damaged")
        self.run.cut_records(step, self.run.events.read())
        self._append_event("rewind", step, error.step, str(error))
        self.warn(f"{error}; returned to step {step:,}, with half the learning rate")
        return state

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
            raise self._divergence(step, end.detail, self._learning_rate(step, end.state))

    def divergence_at(self, error: NonFiniteError) -> Diverged:
        """Return the exception for a step that was not finite."""
        return self._divergence(
            error.step, str(error), self._learning_rate(error.step, error.state)
        )

    def _measure(self, record: Record) -> Record:
        """Return the throughput in tokens, such as characters, and the memory of this process."""
        rate, config = record["steps_per_second"], self.job.config
        local = [d for d in self.job.devices if d.process_index == jax.process_index()]
        tokens = rate and rate * config.batch * config.window
        return {"tokens_per_second": tokens} | memory_in_use(local)

    def _save(self, step: int, state: TrainState, history: list[Record]) -> None:
        best = best_record(history)
        kept = {best["step"]} if best else set()
        if self.job.config.rewind:  # where the run would return to, although it is not the newest
            # a record that was read from the file has None for a loss that is not finite
            losses = {record["step"]: record["val_loss"] for record in history}
            good = [step for step, loss in losses.items() if loss is not None and isfinite(loss)]
            kept.update(good[-1:])
        self.checkpoints.save(step, state, keep=kept)

    def _good_steps(self) -> list[int]:
        """Return the steps that have a checkpoint and a record with a finite validation loss."""
        recorded = {row["step"] for row in self.run.records.read() if row["val_loss"] is not None}
        return [step for step in self.checkpoints.steps() if step in recorded]

    def _append_event(self, event: str, step: int, failed_step: int, message: str) -> None:
        row = {"event": event, "step": step, "failed_step": failed_step, "message": message}
        self.run.events.append(row)

    def _learning_rate(self, step: int, state: TrainState) -> float:
        """Return the learning rate of a step; skipped steps do not advance the schedule."""
        skipped = sum(
            max((int(each.skipped) for each in find_states(state, kind)), default=0)
            for kind in (GuardState, LossScalingState)
        )
        lowered = [s.rate_factor for s in find_states(state, ScaleByRateFactorState)]
        factor = float(np.ravel(lowered[0])[0]) if lowered else 1.0
        return factor * np.asarray(self.job.schedule(max(step - skipped, 1) - 1)).item()

    def _divergence(self, step: int, error: str, rate: float) -> Diverged:
        self._append_event("stop", step, step, error)
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
