"""Programs to time: compiled ahead of time, with their cost and the values that they compute."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

Values = Mapping[str, np.ndarray]


class Program(NamedTuple):
    """A program whose single call does all the timed work.

    Attributes:
      call: runs the program, and returns when the device has finished.
      values: converts the result of a call to arrays by name, in a layout common to all contenders.
      steps: training steps in one call.
      compile_seconds: time to trace, lower and compile; None where nothing is compiled.
      temp_bytes: temporary memory as the compiler reports it; None where it reports none.
    """

    call: Callable[[], Any]
    values: Callable[[Any], Values]
    steps: int = 1
    compile_seconds: float | None = None
    temp_bytes: int | None = None


class Unavailable(Exception):
    """A contender cannot run a row; the message says why."""


def compile_program(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    values: Callable[[Any], Values],
    *,
    steps: int = 1,
) -> Program:
    """Compile a function of arrays for the given arguments, ahead of the first call."""
    compiled, seconds, memory = compile_ahead(jax.jit(function), *arguments)

    def call():
        return jax.block_until_ready(compiled(*arguments))

    return Program(call, values, steps, seconds, memory)


def compile_ahead(function: Any, *arguments: Any) -> tuple[Any, float, int | None]:
    """Return the compiled function, the compile time in seconds, and the temporary bytes."""
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    analysis = compiled.memory_analysis()
    return compiled, seconds, None if analysis is None else analysis.temp_size_in_bytes


@contextmanager
def without_cache() -> Iterator[None]:
    """Disable JAX's persistent compilation cache inside the block, so that compiling is timed."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX caches whether the cache is enabled
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def deviation(values: Values, reference: Values) -> float:
    """Return the largest ‖a − b‖/‖b‖ over all arrays; ∞ where the names or shapes differ."""
    if values.keys() != reference.keys():
        return float("inf")
    return max(_relative_error(values[name], reference[name]) for name in reference)


def _relative_error(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    norm = np.linalg.norm(np.asarray(b, np.float64))
    error = float(np.linalg.norm(np.asarray(a, np.float64) - b) / (norm or 1.0))
    return error if np.isfinite(error) else float("inf")
