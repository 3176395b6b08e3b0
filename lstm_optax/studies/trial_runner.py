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
from lstm_optax.studies.study_records import StudyError
from lstm_optax.studies.trial import Trial
from lstm_optax.studies.trial_program import TrialProgram
from lstm_optax.training import TrainState
from lstm_optax.training.batches import SAME_BATCHES, stack_batches
from lstm_optax.trees import describe_differences, describe_leaves

BATCH_BYTES = 2**26
"""Largest size of the batches of one dispatch; a longer interval takes several dispatches."""

OnEvaluation = Callable[[Trial, Record], None]
"""Called with a trial and its record after each evaluation."""


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
      on_compile: called with the seconds of the compilation before the first step.
    """

    def __init__(
        self,
        program: TrialProgram,
        log: StudyLog,
        *,
        steps: int,
        eval_every: int,
        on_evaluation: OnEvaluation = lambda trial, record: None,
        on_compile: Callable[[float], None] = lambda seconds: None,
    ):
        self.program: TrialProgram = program
        self.log: StudyLog = log
        self.steps: int = steps
        self.eval_every: int = eval_every
        self.on_evaluation: OnEvaluation = on_evaluation
        self.on_compile: Callable[[float], None] = on_compile
        self._compiled = False
        self._paused: dict[str, tuple[TrainState, int, float]] = {}
        self._until: int = steps
        first = program.task.batches(0, 0)
        self._expected = describe_leaves(first)
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
        names = {trial.name for trial in trials}
        self._paused = {name: self._paused[name] for name in names & self._paused.keys()}
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
                if not self._compiled:
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
        self._compiled = True
        self.on_compile(time.perf_counter() - began)
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
        # stacked slots take the whole time together, also those without a trial
        share = 1 / self.program.per_device
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
        busy = next(slot for slot in slots if slot.busy)
        sources = [slot if slot.busy else busy for slot in slots]  # a free slot reads no batch
        batches = [self._stack(slot.trial.seed, slot.step) for slot in sources]
        return self.program.advance(states, hyper, batches, counts, evaluate)

    def _record(self, slot: Slot, result: Any, evaluated: bool) -> None:
        finite = bool(result.finite)
        metrics = {name: float(value) for name, value in result.metrics.items()}
        if finite and evaluated:
            finite = math.isfinite(metrics[self.program.task.metric])
        # a trial that diverged took fewer steps than the others in the dispatch
        place = dict(step=int(result.step), seconds=round(slot.seconds, 4))
        facts = dict(trial=slot.trial.name, **place)
        if evaluated or not finite:
            means = dict(loss=float(result.loss), grad_norm=float(result.grad_norm))
            means["learning_rate"] = float(str(result.learning_rate))  # 0.001, as in the float32
            record = self.log.add({"record": "evaluation", **facts, **means, **metrics})
            self.on_evaluation(slot.trial, record)
        if not finite or slot.step >= self.steps:
            slot.busy = False
            status = "finished" if finite else "diverged"
            self.log.add({"record": "end", "trial": slot.trial.name, "status": status, **place})

    def _stack_batches(self, seed: int, first: int) -> Any:
        """Return the batches of a chunk, stacked along a first axis.

        Raises:
          StudyError: a batch differs from the first one in structure, shape or dtype.
        """
        task = self.program.task
        batches = [task.batches(first + i, seed) for i in range(self._chunk)]
        for i, batch in enumerate(batches):
            if text := describe_differences(describe_leaves(batch), self._expected):
                name = f"task {task.name}: batches({first + i}, {seed})"
                raise StudyError(f"{name} has {text}: {SAME_BATCHES}")
        return stack_batches(batches)


def state_bytes_per_parameter(state: TrainState) -> float:
    """Return the size of an optimizer's state in bytes, divided by the number of parameters."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.opt_state))
    return size / max(1, sum(leaf.size for leaf in jax.tree.leaves(state.params)))
