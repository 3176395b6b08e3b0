"""Search in the text of a compiled program."""

import re

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
