"""Hyper-parameters of named optimizers: list them, and read them from texts NAME=VALUE.

Nothing here imports JAX until a name is looked up.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any

from lstm_optax.runs.argument_kinds import HyperParameter
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.optimizer_lookup import (
    RATE_ARGUMENTS,
    OptimizerFactory,
    find_factory,
    find_optimizer,
)

__all__ = ["hyper_parameters_of"]

FORMS = {
    "--set": "NAME=VALUE, such as momentum=0.99",
    "--grid": "NAME=VALUE,VALUE, such as momentum=0.9,0.99",
    "--task-set": "NAME=VALUE, such as hidden=64",
}
PROBE_RATE = 1e-3  # learning rate with which an optimizer is built to check its other arguments


def hyper_parameters_of(name: str) -> dict[str, HyperParameter]:
    """Return the hyper-parameters of a named optimizer except its learning rate.

    These are the arguments of its factory that are numbers, flags or choices. Functions, arrays,
    masks and dtypes are not among them.

    Args:
      name: of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or `optax.contrib.<name>`.

    Raises:
      OptionError: the name is unknown, or is not an optimizer.
    """
    return dict(find_optimizer(name).hyper_parameters)


def parse_settings(
    name: str, texts: Sequence[str], *, flag: str = "--set", searched: Collection[str] = ()
) -> dict[str, Any]:
    """Return the hyper-parameters of texts such as "momentum=0.99", as options of the factory.

    Args:
      name: of the optimizer, as for `hyper_parameters_of`.
      texts: each NAME=VALUE; a flag is true or false, and none is None.
      flag: of the command line, for messages.
      searched: names of hyper-parameters whose values come later; the optimizer is then not built.

    Raises:
      OptionError: a text is malformed, a name is unknown or given twice, a value is of another
        kind, or the optimizer rejects the values.
    """
    given = split_settings(texts, flag=flag)
    optimizer = find_optimizer(name)
    values = {key: _parse_value(optimizer, key, text, flag) for key, text in given.items()}
    if searched:
        find_factory(name, given=[*values, *searched])
    else:
        check_settings(name, values, flag=flag)
    return values


def parse_grid(
    name: str,
    texts: Sequence[str],
    *,
    settings: Mapping[str, Any] | None = None,
    flag: str = "--grid",
) -> dict[str, tuple[Any, ...]]:
    """Return the values of texts such as "b1=0.9,0.95", by hyper-parameter.

    Args:
      name: of the optimizer, as for `hyper_parameters_of`.
      texts: each NAME=VALUE,VALUE,…
      settings: values of other hyper-parameters that all points of the grid share.
      flag: of the command line, for messages.

    Raises:
      OptionError: as for `parse_settings`; or a value is missing or given twice, or a name is in
        `settings` too, or the optimizer rejects a point of the grid.
    """
    settings = dict(settings or {})
    given = split_settings(texts, flag=flag)
    optimizer = find_optimizer(name)
    grid = {key: _parse_values(optimizer, key, text, flag) for key, text in given.items()}
    if both := sorted(grid.keys() & settings):
        raise OptionError(f"{both[0]} is set to one value and has a grid: pass only one of both")
    for point in product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        check_settings(name, settings | values, flag=flag, named=values)
    return grid


def split_settings(texts: Iterable[str], *, flag: str = "--set") -> dict[str, str]:
    """Return the values of texts NAME=VALUE by name; the names and values are not checked.

    Raises:
      OptionError: a text is malformed, a name is given twice, or is that of the learning rate.
    """
    given: dict[str, str] = {}
    example = FORMS.get(flag, FORMS["--set"])
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise OptionError(f"{flag} {text!r} is not a name and a value: write {flag} {example}")
        if name in RATE_ARGUMENTS and flag != "--task-set":
            raise OptionError(
                f"{flag} {text}: the learning rate has an option of its own, --learning-rate or, "
                "in a sweep, --rates"
            )
        if name in given:
            raise OptionError(f"{flag} {name} is given twice, as {given[name]} and as {value}")
        given[name] = value
    return given


def check_settings(
    name: str,
    values: Mapping[str, Any],
    *,
    flag: str = "--set",
    named: Iterable[str] | None = None,
) -> None:
    """Raise OptionError if the named optimizer rejects the values of its hyper-parameters.

    Args:
      name: of the optimizer.
      values: by hyper-parameter.
      flag: of the command line, for messages.
      named: the hyper-parameters that a message may name; by default all.
    """
    factory = find_factory(name, given=values)
    if not values:
        return
    try:
        factory(PROBE_RATE, **values)
    except Exception as error:  # Optax's factories raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        names = list(values if named is None else named)
        blamed = [key for key in names if re.search(rf"\b{re.escape(key)}\b", reason)] or names
        shown = " ".join(f"{flag} {key}={_format_value(values[key])}" for key in blamed)
        raise OptionError(f"{shown}: {reason}") from error


def _parse_value(optimizer: OptimizerFactory, key: str, text: str, flag: str) -> Any:
    if key not in optimizer.hyper_parameters:
        raise OptionError(f"{flag} {key}={text}: {_unknown_message(optimizer, key)}")
    try:
        return optimizer.hyper_parameters[key].parse(text)
    except ValueError as error:
        raise OptionError(f"{flag} {key}={text}: {error}") from None


def _parse_values(optimizer: OptimizerFactory, key: str, text: str, flag: str) -> tuple[Any, ...]:
    values = []
    for part in text.split(","):
        if not part.strip():
            raise OptionError(f"{flag} {key}={text}: a value is missing next to a comma")
        value = _parse_value(optimizer, key, part.strip(), flag)
        if value in values:
            raise OptionError(f"{flag} {key}={text}: {part.strip()} is given twice")
        values.append(value)
    return tuple(values)


def _unknown_message(optimizer: OptimizerFactory, key: str) -> str:
    """Return why a name is not a hyper-parameter, with the nearest name and all names."""
    known = optimizer.hyper_parameters
    elements = [name for name in known if name.startswith(f"{key}.")]
    if elements:
        return f"{key} has several values; set each alone: {', '.join(elements)}"
    if key in optimizer.arguments:
        return f"{key} is neither a number nor a flag nor a choice; pass it in Python"
    if not known:
        return f"{optimizer.name} has no hyper-parameter except the learning rate"
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    nearest = f"the nearest is {near[0]!r}; " if near else ""
    return f"{optimizer.name} has no hyper-parameter {key!r}; {nearest}there are {', '.join(known)}"


def _format_value(value: Any) -> str:
    """Return a text that is parsed to the value, such as 2 for 2.0 and none for None."""
    text = str(value).removesuffix(".0")
    return text.lower() if value is None or isinstance(value, bool) else text
