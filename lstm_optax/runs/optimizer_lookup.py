"""Find optimizers by name; JAX is imported on demand."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from lstm_optax.names import check_optimizer
from lstm_optax.runs.constraints import OptionError

RATE_ARGUMENTS = ("learning_rate", "lr")


def find_factory(name: str) -> Callable[..., Any]:
    """Return the factory of a named optimizer, a function of the learning rate and of options.

    Args:
      name: of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or `optax.contrib.<name>`.

    Raises:
      OptionError: the name is unknown, or the optimizer has other required arguments.
    """
    from lstm_optax.optimizers import OPTIMIZERS

    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    try:
        check_optimizer(name)
    except ValueError as error:
        raise OptionError(str(error)) from None
    make, rate = _find_public_factory(name)
    missing = [
        p.name
        for p in inspect.signature(make).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if others := [argument for argument in missing if argument != rate]:
        given = ", ".join(f"{argument}=…" for argument in others)
        raise OptionError(
            f"{name} needs {', '.join(others)} in addition to its learning rate; call it in "
            f"Python: {name}({rate}=…, {given})"
        )
    return lambda value, **options: make(**{rate: value}, **options)


def takes_decay(name: str) -> bool:
    """Return whether a named optimizer has an argument `weight_decay`.

    Raises:
      OptionError: the name is unknown, or is not an optimizer.
    """
    from lstm_optax.optimizers import OPTIMIZERS

    make = OPTIMIZERS[name] if name in OPTIMIZERS else _find_public_factory(name)[0]
    return "weight_decay" in inspect.signature(make).parameters


def default_numbers(name: str) -> dict[str, float]:
    """Return the default numbers of a named optimizer's arguments; {} if the name is unknown.

    The entries of a tuple are listed separately, as "betas[1]".
    """
    from lstm_optax.optimizers import OPTIMIZERS

    try:
        make = OPTIMIZERS[name] if name in OPTIMIZERS else _find_public_factory(name)[0]
    except OptionError:  # an optimizer that this version of Optax lacks
        return {}
    found = {}
    for parameter in inspect.signature(make).parameters.values():
        value = parameter.default
        parts = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for i, part in parts:
            if isinstance(part, int | float) and not isinstance(part, bool):
                found[parameter.name if i is None else f"{parameter.name}[{i}]"] = part
    return found


def _find_public_factory(name: str) -> tuple[Any, str]:
    """Return a factory of the presets or of Optax, and the name of its learning-rate argument."""
    callables = _public_callables()
    if name not in callables:
        optimizers = [n for n, make in callables.items() if _rate_argument(make)]
        raise OptionError(_unknown_name_message(name, optimizers))
    rate = _rate_argument(callables[name])
    if rate is None:
        raise OptionError(
            f"{name} is not an optimizer: it takes no learning rate; if it is a link of a chain, "
            f"measure it in Python: lstm_optax.explain({name}(…))"
        )
    return callables[name], rate


def _unknown_name_message(name: str, names: list[str]) -> str:
    """Return the error message, with the nearest name of the same source or all names of it."""
    source, _, last = name.rpartition(".")
    inside = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] in (source, name)}
    near = get_close_matches(last, inside, n=1, cutoff=0.6)
    message = f"unknown optimizer {name!r}"
    if near:
        return f"{message}; the nearest is {inside[near[0]]!r}"
    known = ", ".join(inside.values()) or "presets.SOURCE.NAME, optax.NAME and optax.contrib.NAME"
    return f"{message}; there are {known}"


def _public_callables() -> dict[str, Any]:
    """Return the callables of the presets and of Optax by their full names."""
    import optax
    import optax.contrib

    import lstm_optax.presets as presets

    sources: dict[str, ModuleType] = {"optax": optax, "optax.contrib": optax.contrib}
    found = {
        f"{path}.{name}": thing
        for path, module in sources.items()
        for name, thing in vars(module).items()
        if callable(thing) and not isinstance(thing, type) and not name.startswith("_")
    }
    for source in dir(presets):
        module = getattr(presets, source)
        found |= {f"presets.{source}.{name}": getattr(module, name) for name in module.__all__}
    return found


def _rate_argument(make: Any) -> str | None:
    """Return the name of a factory's learning-rate argument; None if it has none."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some callables have no signature
        return None
    return next((rate for rate in RATE_ARGUMENTS if rate in parameters), None)
