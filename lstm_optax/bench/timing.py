"""Contenders timed in turn, so that whatever disturbs the machine disturbs them all."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.bench.config import MIN_ROUNDS
from lstm_optax.bench.programs import Program

SHORTEST = 0.005  # seconds of a sample: a shorter call is repeated
PAUSE = 0.002  # seconds between contenders, in which the threads of the last one go to sleep
WARMUPS = 2

Samples = dict[str, NDArray[np.float64]]


def time_in_turn(
    programs: Mapping[str, Program],
    rounds: int,
    rng: np.random.Generator,
    *,
    seconds: float,
    on_round: Callable[[int], None] = lambda done: None,
) -> Samples:
    """Return the seconds per step of each program in each round.

    In a round each has its turn, in an order drawn anew. A turn is one call that is not timed where
    a call is one step, as in training a step follows another, then as many as make a sample.

    Args:
      programs: by the names of their contenders; each has been called before.
      rounds: at most so many.
      rng: draws the orders.
      seconds: no round begins after these, once MIN_ROUNDS are done.
      on_round: called with the number of rounds done.
    """
    calls = {name: _calls(program) for name, program in programs.items()}
    samples: dict[str, list[float]] = {name: [] for name in programs}
    began, names = time.perf_counter(), list(programs)
    for done in range(rounds):
        if done >= MIN_ROUNDS and time.perf_counter() - began > seconds:
            break
        for i in rng.permutation(len(names)):
            program = programs[names[i]]
            time.sleep(PAUSE)
            if program.steps == 1:
                program.call()
            took = _time(program, calls[names[i]])
            samples[names[i]].append(took / (calls[names[i]] * program.steps))
        on_round(done + 1)
    return {name: np.array(taken) for name, taken in samples.items()}


def quartiles(values: NDArray[np.float64]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def _calls(program: Program) -> int:
    """Warm a program up, and return how many calls make a sample."""
    took = min(_time(program, 1) for _ in range(WARMUPS))
    return max(1, int(np.ceil(SHORTEST / max(took, 1e-7))))


def _time(program: Program, calls: int) -> float:
    result: Any = None
    began = time.perf_counter()
    for _ in range(calls):
        result = program.call()
    took = time.perf_counter() - began
    del result  # after the clock: to free memory is no part of the next one's time
    return took
