"""Constraints of command-line options, declared in the annotations of a configuration's fields.

`hidden: Annotated[int, whole_numbers(1, 100)]` declares the range, the check and the error message.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from lstm_optax.checks import Range, check_choice

MAX_COUNT = 2**31 - 1  # the largest step count in the state of a training
FLOAT32_TINY = 1.2e-38  # about the smallest normal number in float32


class OptionError(ValueError):
    """An invalid option; the message names the option and says what to do."""


@dataclass(frozen=True)
class OptionRange(Range):
    """The numbers that an option accepts.

    Attributes:
      normal: exclude the positive numbers that are subnormal in float32.
    """

    normal: bool = False

    def check(self, **arguments: Any) -> None:
        """Raise ValueError for the first argument that is outside the range."""
        super().check(**arguments)
        for name, value in arguments.items():
            if self.normal and 0 < value < FLOAT32_TINY:
                raise ValueError(
                    f"{name} is {value}, but the smallest normal number in float32 is "
                    f"{FLOAT32_TINY}"
                )

    def __str__(self) -> str:
        if self.whole:
            return f"a whole number from {self.low:,} to {self.high:,}"
        text = super().__str__()
        return text if self.high < math.inf else text.replace("a number", "a finite number")


def whole_numbers(low: int, high: int = MAX_COUNT) -> OptionRange:
    """Return the range of the whole numbers from `low` to `high`."""
    return OptionRange(low, high, closed=True, whole=True)


POSITIVE = OptionRange(above=True, normal=True)

Count = Annotated[int, whole_numbers(1)]
CountOrZero = Annotated[int, whole_numbers(0)]
Seed = Annotated[int, whole_numbers(0, 2**32 - 1)]
Positive = Annotated[float, POSITIVE]
NormBound = Annotated[float, OptionRange(normal=True)]
NonNegative = Annotated[float, OptionRange()]
Probability = Annotated[float, OptionRange(high=1)]


def check_fields(config: Any) -> None:
    """Raise OptionError for the first field of a dataclass that violates its annotation.

    Ranges and the choices of a `Literal` are checked; an optional field may be None.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if value is None and type(None) in get_args(kind):
            continue
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Range):
                check_option(name, value, mark)
        if get_origin(kind) is Literal:
            try:
                check_choice(flag_of(name), value, get_args(kind))
            except ValueError as error:
                raise OptionError(str(error)) from None


def check_option(name: str, value: Any, allowed: Range) -> None:
    """Raise OptionError if the value of an option is outside its range."""
    try:
        allowed.check(**{flag_of(name): value})
    except ValueError as error:
        raise OptionError(str(error)) from None


def flag_of(name: str) -> str:
    """Return the command-line flag of a field."""
    return f"--{name.replace('_', '-')}"
