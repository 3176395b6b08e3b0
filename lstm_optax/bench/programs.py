"""A program to be timed: compiled ahead, with what it cost and what it computes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

Values = Mapping[str, np.ndarray]


class Program(NamedTuple):
    """One call does all that is timed, and returns when it is done.

    Attributes:
      call: runs it once, to its end.
      values: what a call returned → arrays by name, in the layout that all contenders share.
      steps: time steps of training in one call.
      compile_seconds: to trace, lower and compile it; None where nothing is compiled.
      temp_bytes: its temporary memory by the compiler's account; None where there is none.
    """

    call: Callable[[], Any]
    values: Callable[[Any], Values]
    steps: int = 1
    compile_seconds: float | None = None
    temp_bytes: int | None = None


class Unavailable(Exception):
    """A contender cannot serve a row; the message says why."""


def compile_program(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    values: Callable[[Any], Values],
    *,
    steps: int = 1,
) -> Program:
    """Compile a function of arrays for these arguments, ahead of the first call."""
    compiled, seconds, memory = compile_ahead(jax.jit(function), *arguments)

    def call():
        return jax.block_until_ready(compiled(*arguments))

    return Program(call, values, steps, seconds, memory)


def compile_ahead(function: Any, *arguments: Any) -> tuple[Any, float, int | None]:
    """Return the compiled function, the seconds it took, and its temporary bytes."""
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    analysis = compiled.memory_analysis()
    return compiled, seconds, None if analysis is None else analysis.temp_size_in_bytes


@contextmanager
def without_cache() -> Iterator[None]:
    """Compile anew for the length of the block, whatever JAX has in its persistent cache."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # it remembers whether it is used
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def deviation(values: Values, reference: Values) -> float:
    """Return the largest ‖a − b‖/‖b‖ over the arrays of the reference; ∞ where one is missing."""
    if values.keys() != reference.keys():
        return float("inf")
    return max(_relative(values[name], reference[name]) for name in reference)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    norm = np.linalg.norm(np.asarray(b, np.float64))
    error = float(np.linalg.norm(np.asarray(a, np.float64) - b) / (norm or 1.0))
    return error if np.isfinite(error) else float("inf")
