"""Contenders timed in turn, so that a disturbance of the machine affects them all."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_optax.bench.config import MIN_ROUNDS
from lstm_optax.bench.programs import Program

SHORTEST = 0.005  # seconds of a sample; shorter calls are repeated
PAUSE = 0.002  # seconds between contenders, in which the threads of the last one go to sleep
WARMUPS = 2

Clock = Callable[[], float]
"""Returns the time in seconds, from any origin."""

Samples = dict[str, NDArray[np.float64]]


def time_in_turn(
    programs: Mapping[str, Program],
    rounds: int,
    rng: np.random.Generator,
    *,
    seconds: float,
    clock: Clock = time.perf_counter,
    on_round: Callable[[int], None] = lambda done: None,
) -> Samples:
    """Return the seconds per step of each program in each round.

    In each round every program has one turn, in a random order. A turn is as many timed calls as
    make a sample. A program of one step per call is called once more before the clock starts: in
    training, a step follows another step.

    Args:
      programs: programs by contender, each already called once.
      rounds: largest number of rounds.
      rng: draws the order of each round.
      seconds: no round starts after this time, once MIN_ROUNDS are done.
      clock: the clock that times them.
      on_round: called with the number of rounds done.
    """
    calls = {name: _calls_per_sample(program, clock) for name, program in programs.items()}
    samples: dict[str, list[float]] = {name: [] for name in programs}
    began, names = clock(), list(programs)
    for done in range(rounds):
        if done >= MIN_ROUNDS and clock() - began > seconds:
            break
        for i in rng.permutation(len(names)):
            program = programs[names[i]]
            time.sleep(PAUSE)
            if program.steps == 1:
                program.call()
            took = _time_calls(program, calls[names[i]], clock)
            samples[names[i]].append(took / (calls[names[i]] * program.steps))
        on_round(done + 1)
    return {name: np.array(taken) for name, taken in samples.items()}


def quartiles(values: NDArray[np.float64]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def _calls_per_sample(program: Program, clock: Clock) -> int:
    """Warm up a program, and return the number of calls that make a sample."""
    took = min(_time_calls(program, 1, clock) for _ in range(WARMUPS))
    return max(1, int(np.ceil(SHORTEST / max(took, 1e-7))))


def _time_calls(program: Program, calls: int, clock: Clock) -> float:
    result: Any = None
    began = clock()
    for _ in range(calls):
        result = program.call()
    took = clock() - began
    del result  # after the clock has stopped: freeing memory is not part of the next sample
    return took
