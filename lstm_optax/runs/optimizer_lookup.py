"""Find optimizers by their names; JAX is imported when it is needed."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from lstm_optax.names import check_optimizer
from lstm_optax.runs.options import OptionError

RATES = ("learning_rate", "lr")  # what factories call their learning rate


def find_factory(name: str) -> Callable[..., Any]:
    """Return the optimizer of that name as a function of its learning rate and of options.

    Args:
      name: of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or `optax.contrib.<name>`.

    Raises:
      OptionError: there is none, or it needs more than a learning rate.
    """
    from lstm_optax.optimizers import OPTIMIZERS

    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    try:
        check_optimizer(name)
    except ValueError as error:
        raise OptionError(str(error)) from None
    make, rate = _find(name)
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
    """Return whether an optimizer has an argument `weight_decay`; raises as `find_factory`."""
    from lstm_optax.optimizers import OPTIMIZERS

    make = OPTIMIZERS[name] if name in OPTIMIZERS else _find(name)[0]
    return "weight_decay" in inspect.signature(make).parameters


def _find(name: str) -> tuple[Any, str]:
    """Return what a name of the presets or of Optax stands for, and how its rate is called."""
    there = _public()
    if name not in there:
        optimizers = [n for n, make in there.items() if _rate_of(make)]
        raise OptionError(_unknown(name, optimizers))
    rate = _rate_of(there[name])
    if rate is None:
        raise OptionError(
            f"{name} is no optimizer: it takes no learning rate; if it is a link of a chain, "
            f"measure it in Python: lstm_optax.explain({name}(…))"
        )
    return there[name], rate


def _unknown(name: str, names: list[str]) -> str:
    """Return that a name is unknown, and the nearest of its source, or all that the source has."""
    source, _, last = name.rpartition(".")
    inside = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] in (source, name)}
    near = get_close_matches(last, inside, n=1, cutoff=0.6)
    message = f"unknown optimizer {name!r}"
    if near:
        return f"{message}; the nearest is {inside[near[0]]!r}"
    there = ", ".join(inside.values()) or "presets.SOURCE.NAME, optax.NAME and optax.contrib.NAME"
    return f"{message}; there are {there}"


def _public() -> dict[str, Any]:
    """Return the callables of the presets and of Optax, by the names that users give them."""
    import optax
    import optax.contrib

    import lstm_optax.presets as presets

    sources: dict[str, ModuleType] = {"optax": optax, "optax.contrib": optax.contrib}
    there = {
        f"{path}.{name}": thing
        for path, module in sources.items()
        for name, thing in vars(module).items()
        if callable(thing) and not isinstance(thing, type) and not name.startswith("_")
    }
    for source in presets.__all__:
        module = getattr(presets, source)
        there |= {f"presets.{source}.{name}": getattr(module, name) for name in module.__all__}
    return there


def _rate_of(make: Any) -> str | None:
    """Return what a factory calls its learning rate, None if it has none."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some things that can be called have no signature
        return None
    return next((rate for rate in RATES if rate in parameters), None)
