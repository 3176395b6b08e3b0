"""Reads the text of a compiled program."""

import re

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", re.M | re.S)
CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)


def innermost_loops(text: str) -> list[str]:
    """The bodies of the loops in which there is no other loop, with all that they call."""
    parts = dict(COMPUTATION.findall(text))

    def whole(name: str) -> str:
        return parts[name] + "".join(map(whole, CALLED.findall(parts[name])))

    bodies = [whole(name) for name in re.findall(r"body=%?([\w.\-]+)", text)]
    return [body for body in bodies if " while(" not in body]
