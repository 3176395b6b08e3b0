"""Kinds of a factory's arguments: which of them can be set by a text; JAX is imported on demand."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np

from lstm_optax.runs.constraints import OptionRange

__all__ = ["HyperParameter"]

Kind = Literal["number", "whole number", "flag", "choice"]

KEYS = ("key",)  # arguments that are random keys, although their annotation allows a number
NUMBER = OptionRange(-math.inf, closed=True, normal=True)
WHOLE = OptionRange(-(2**31), 2**31 - 1, closed=True, whole=True)


@dataclass(frozen=True)
class HyperParameter:
    """An argument of an optimizer that is a number, a flag or a choice.

    Attributes:
      name: of the argument; an element of a tuple has the tuple's name and its index, as `betas.0`.
      default: the factory's own value; `inspect.Parameter.empty` if there is none.
      kind: "number" (a float, which may be traced), "whole number", "flag" or "choice".
      optional: None is a value as well.
      choices: the texts of a choice.
    """

    name: str
    default: Any
    kind: Kind
    optional: bool = False
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether the factory has no default for it."""
        return self.default is inspect.Parameter.empty

    @property
    def expected(self) -> str:
        """The values that are accepted, for a message."""
        words = {
            "number": "a number",
            "whole number": "a whole number",
            "flag": "true or false",
            "choice": " or ".join(self.choices),
        }[self.kind]
        return f"{words}, or none" if self.optional else words

    def parse(self, text: str) -> float | int | bool | str | None:
        """Return the value of a text.

        Raises:
          ValueError: the text is of another kind, or the number does not fit in 32 bits.
        """
        if self.optional and text.lower() == "none":
            return None
        try:
            value = {
                "number": _parse_number,
                "whole number": int,
                "flag": lambda word: {"true": True, "false": False}[word.lower()],
                "choice": lambda word: self.choices[self.choices.index(word)],
            }[self.kind](text)
        except (ValueError, KeyError):
            raise ValueError(f"{self.name} is {text}, but must be {self.expected}") from None
        if self.kind in ("number", "whole number"):
            (WHOLE if self.kind == "whole number" else NUMBER).check(**{self.name: value})
        return value


def describe_argument(argument: inspect.Parameter) -> Iterator[HyperParameter]:
    """Yield the hyper-parameters of an argument; none for a function, an array or a mask."""
    name, default = argument.name, argument.default
    if isinstance(default, tuple):
        if all(_is_number(value) for value in default):
            for index, value in enumerate(default):
                yield HyperParameter(f"{name}.{index}", value, "number")
        return
    types = set(_member_types(argument.annotation))
    optional = NoneType in types or default is None
    types.discard(NoneType)
    choices = tuple(choice for kind in types for choice in _choices(kind))
    if choices:
        yield HyperParameter(name, default, "choice", optional, choices)
    elif types == {bool}:
        yield HyperParameter(name, default, "flag", optional)
    elif name not in KEYS and types & {int, float} and all(map(_is_number_type, types)):
        whole = int in types and (isinstance(default, int) or float not in types)
        yield HyperParameter(name, default, "whole number" if whole else "number", optional)


def _member_types(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if get_origin(annotation) in (None, Literal, Callable, tuple, type):
        return (annotation,)
    return get_args(annotation)


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _is_number_type(kind: Any) -> bool:
    """Return whether a member of a union is a scalar, an array or a schedule."""
    import jax

    numbers = (bool, int, float, complex, np.bool_, np.number, np.ndarray, jax.Array)
    return kind in numbers or get_origin(kind) is Callable


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError("not a number")
    return value
