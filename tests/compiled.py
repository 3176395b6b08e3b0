"""Count compiled programs, compare what two of them compute, and search in their text."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import chex
import jax
import pytest
from quick_compilation import OPTIMIZED

cpu_program = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="states a fact about the program for a CPU"
)

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", re.M | re.S)
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)


ROUNDING = 0 if jax.default_backend() == "cpu" else 3e-6
"""Relative difference of one computation in two programs: a GPU may choose other kernels."""


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the bit on a CPU, and up to rounding elsewhere."""
    chex.assert_trees_all_close(found, expected, rtol=ROUNDING, atol=0)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the functions that JAX compiles in the block, such as "jit(program)"."""
    names: list[str] = []

    def note(event: str, seconds: float, *, fun_name: str = "", **facts: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def optimized(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile as for users, with the optimizations that the other programs of the tests lack."""
    return lowered.compile(compiler_options=OPTIMIZED)


def innermost_loops(text: str) -> list[str]:
    """Return the bodies of the loops without an inner loop, with all computations they call."""
    parts = dict(COMPUTATION.findall(text))

    def text_of(name: str) -> str:
        return parts[name] + "".join(map(text_of, CALLED.findall(parts[name])))

    bodies = [text_of(name) for name in re.findall(r"body=%?([\w.\-]+)", text)]
    return [body for body in bodies if " while(" not in body]
