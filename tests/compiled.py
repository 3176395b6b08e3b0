"""Search in the text of a compiled program."""

import re

import jax
import pytest

cpu_program = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="states a fact about the program for a CPU"
)

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", re.M | re.S)
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)


def innermost_loops(text: str) -> list[str]:
    """Return the bodies of the loops without an inner loop, with all computations they call."""
    parts = dict(COMPUTATION.findall(text))

    def text_of(name: str) -> str:
        return parts[name] + "".join(map(text_of, CALLED.findall(parts[name])))

    bodies = [text_of(name) for name in re.findall(r"body=%?([\w.\-]+)", text)]
    return [body for body in bodies if " while(" not in body]
