"""What a sweep searches, as texts on the command line."""

import math
from collections.abc import Container, Sequence

from lstm_optax.runs.constraints import OptionError


def split_clip(
    texts: Sequence[str], known: Container[str]
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Return the grid of the clip in front of the optimizer, and the texts of its own grids.

    Raises:
      OptionError: a value that is not a number above 0.
    """
    others = [text for text in texts if "clip" in known or text.partition("=")[0] != "clip"]
    found = {}
    for text in (text for text in texts if text not in others):
        try:
            values = tuple(float(value) for value in text.partition("=")[2].split(","))
        except ValueError:
            values = (0.0,)
        if "clip" in found:
            raise OptionError("--grid clip is given twice")
        if not all(0 < value < math.inf for value in values):
            raise OptionError(f"--grid {text}: clips must be numbers above 0, as in clip=0.25,1")
        found["clip"] = values
    return found, others


def parse_space(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the ranges of texts NAME=LOW:HIGH by name.

    Raises:
      OptionError: a text without a name or a range, or a name given twice.
    """
    found = {}
    for text in texts:
        name, _, values = text.partition("=")
        try:
            low, high = map(float, values.split(":"))
        except ValueError:
            example = "--space learning_rate=1e-4:1e-1"
            raise OptionError(
                f"--space {text}: write a name and a range, as in {example}"
            ) from None
        if name in found:
            raise OptionError(f"--space {name} is given twice")
        found[name] = (low, high)
    return found
