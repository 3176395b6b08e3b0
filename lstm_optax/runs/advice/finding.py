"""A finding of `advise`: what was measured in a run, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Confidence: TypeAlias = Literal["high", "medium", "low"]

CONFIDENCES: tuple[Confidence, ...] = get_args(Confidence)


@dataclass(frozen=True)
class Finding:
    """A finding of `advise`.

    The confidence is one of three words:

    - high: the records show it, and it limits what the run could reach;
    - medium: the records show it; whether it limits the run depends on the task;
    - low: it follows from settings or from few records, and was not measured itself.
    """

    rule: str
    """Name of the rule, such as "still-falling"."""

    message: str
    """What was measured, in a sentence."""

    numbers: Mapping[str, float]
    """The measured numbers by name."""

    threshold: str
    """The condition that the numbers met."""

    confidence: Confidence

    remedy: str
    """What to change, with the name of the flag or function."""

    source: str
    """The paper, or "own definition"."""

    def __post_init__(self) -> None:
        plain = {name: float(number) for name, number in self.numbers.items()}
        object.__setattr__(self, "numbers", plain)  # no NumPy scalars
