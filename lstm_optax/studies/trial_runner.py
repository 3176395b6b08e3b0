"""Run trials: keep every slot of a program busy, and record each evaluation."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from lstm_optax.records import Record
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial import Trial
from lstm_optax.studies.trial_program import TrialProgram
from lstm_optax.training import TrainState
from lstm_optax.training.batches import stack_batches

BATCH_BYTES = 2**26
"""Largest size of the batches of one dispatch; a longer interval takes several dispatches."""


@dataclass
class Slot:
    """The trial in one slot, and where it is."""

    trial: Trial
    step: int = 0
    seconds: float = 0.0
    busy: bool = False


class TrialRunner:
    """Runs trials of one program; each goes to the next free slot.

    Args:
      program: the compiled training.
      log: receives the records.
      steps: steps of a trial.
      eval_every: steps between evaluations, a divisor of `steps`.
      on_evaluation: called with the trial and its record after each evaluation.
    """

    def __init__(
        self,
        program: TrialProgram,
        log: StudyLog,
        *,
        steps: int,
        eval_every: int,
        on_evaluation: Callable[[Trial, Record], None] = lambda trial, record: None,
    ):
        self.program, self.log = program, log
        self.steps, self.eval_every, self.on_evaluation = steps, eval_every, on_evaluation
        self.compile_seconds: float | None = None
        self._paused: dict[str, tuple[TrainState, int, float]] = {}
        self._until: int = steps
        first = program.task.batches(0, 0)
        size = program.slots * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(first))
        fitting = max(1, BATCH_BYTES // max(size, 1))
        divisors = [n for n in range(1, eval_every + 1) if eval_every % n == 0]
        self._chunk: int = max(n for n in divisors if n <= fitting)
        self._stack = lru_cache(maxsize=2 * program.slots + 2)(self._stack_batches)

    def run(self, trials: Sequence[Trial], until: int | None = None) -> None:
        """Train trials, from where they paused or from their first step.

        Args:
          trials: each runs to its end, or pauses after `until` steps.
          until: a multiple of `eval_every`; None for the last step.
        """
        waiting, self._until = deque(trials), until or self.steps
        if not waiting:
            return
        slots = [Slot(waiting[0]) for _ in range(self.program.slots)]
        states = None
        while True:
            fresh = self._fill(slots, waiting)
            if not any(slot.busy for slot in slots):
                return
            if any(fresh):
                trials_now = [slot.trial for slot in slots]
                hyper, seeds = [t.hyper for t in trials_now], [t.seed for t in trials_now]
                states = self.program.start(states, hyper, seeds, fresh)
                states = self._restore(states, slots, fresh)
                if self.compile_seconds is None:
                    states = self._compile(states, slots)
            states = self._advance(states, slots)

    def _fill(self, slots: list[Slot], waiting: deque[Trial]) -> list[bool]:
        """Give each free slot the next trial; return which slots have a new one."""
        fresh = []
        for i, slot in enumerate(slots):
            fresh.append(not slot.busy and bool(waiting))
            if fresh[-1]:
                slots[i] = Slot(waiting.popleft(), busy=True)
                if slots[i].trial.name not in self._paused:
                    self.log.begin(slots[i].trial)
        return fresh

    def _restore(self, states: Any, slots: list[Slot], fresh: list[bool]) -> Any:
        """Put the paused states of new trials into their slots."""
        for i, slot in enumerate(slots):
            if fresh[i] and slot.trial.name in self._paused:
                state, slot.step, slot.seconds = self._paused.pop(slot.trial.name)
                states = self.program.put(states, i, state)
        return states

    def _compile(self, states: Any, slots: list[Slot]) -> Any:
        """Compile the program by a call without steps, so that no trial's time contains it."""
        began = time.perf_counter()
        states, results = self._dispatch(states, slots, [0] * len(slots), [False] * len(slots))
        jax.block_until_ready(results)
        self.compile_seconds = time.perf_counter() - began
        return states

    def _advance(self, states: Any, slots: list[Slot]) -> Any:
        """Take one chunk of steps in each busy slot, and record what ended."""
        counts = [self._chunk if slot.busy else 0 for slot in slots]
        evaluate = [(slot.step + self._chunk) % self.eval_every == 0 for slot in slots]
        began = time.perf_counter()
        states, results = self._dispatch(states, slots, counts, evaluate)
        for slot in slots:  # while the devices work
            if slot.busy and slot.step + self._chunk < self._until:
                self._stack(slot.trial.seed, slot.step + self._chunk)
        results = jax.device_get(results)
        seconds = time.perf_counter() - began
        share = 1 if self.program.layout == "map" else 1 / sum(slot.busy for slot in slots)
        for i, slot in enumerate(slots):
            if slot.busy:
                slot.step += self._chunk
                slot.seconds += seconds * share
                self._record(slot, jax.tree.map(lambda x, i=i: x[i], results), evaluate[i])
                if slot.busy and slot.step >= self._until:
                    slot.busy = False
                    paused = self.program.take(states, i), slot.step, slot.seconds
                    self._paused[slot.trial.name] = paused
        return states

    def _dispatch(
        self, states: Any, slots: list[Slot], counts: list[int], evaluate: list[bool]
    ) -> tuple[Any, Any]:
        hyper = [slot.trial.hyper for slot in slots]
        steps = [slot.step if slot.step < self.steps else 0 for slot in slots]
        batches = [self._stack(s.trial.seed, step) for s, step in zip(slots, steps, strict=True)]
        return self.program.advance(states, hyper, batches, counts, evaluate)

    def _record(self, slot: Slot, result: Any, evaluated: bool) -> None:
        finite = bool(result.finite)
        metrics = {name: float(value) for name, value in result.metrics.items()}
        if finite and evaluated:
            finite = math.isfinite(metrics[self.program.task.metric])
        if evaluated or not finite:
            facts = dict(trial=slot.trial.name, step=slot.step, seconds=round(slot.seconds, 4))
            means = dict(loss=float(result.loss), grad_norm=float(result.grad_norm))
            record = self.log.add({"record": "evaluation", **facts, **means, **metrics})
            self.on_evaluation(slot.trial, record)
        if not finite or slot.step >= self.steps:
            slot.busy = False
            facts = dict(trial=slot.trial.name, status="finished" if finite else "diverged")
            self.log.add(
                {"record": "end", **facts, "step": slot.step, "seconds": round(slot.seconds, 4)}
            )

    def _stack_batches(self, seed: int, first: int) -> Any:
        """Return the batches of a chunk, stacked along a first axis."""
        batches = [self.program.task.batches(first + i, seed) for i in range(self._chunk)]
        return stack_batches(batches)


def state_bytes_per_parameter(state: TrainState) -> float:
    """Return the size of an optimizer's state in bytes, divided by the number of parameters."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.opt_state))
    return size / max(1, sum(leaf.size for leaf in jax.tree.leaves(state.params)))
