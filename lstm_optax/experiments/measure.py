"""Find optimizers by their names and measure them; JAX is imported when it is needed."""

import inspect
import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lstm_optax.experiments.options import OptionError
from lstm_optax.names import OPTIMIZER_NAMES

if TYPE_CHECKING:
    from lstm_optax.response import Response

__all__ = ["explain_optimizers"]

RATES = ("learning_rate", "lr")  # what factories call their learning rate


def explain_optimizers(names: Sequence[str], *, learning_rate: float = 1e-3) -> "list[Response]":
    """Measure optimizers by their names, each as `explain` does.

    Args:
      names: names of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or
        `optax.contrib.<name>`.
      learning_rate: above 0, what each is built with.

    Raises:
      OptionError: a name is unknown, names no optimizer, or one that cannot be measured.
    """
    check_names(names, learning_rate)
    factories = [_factory(name) for name in names]
    from lstm_optax.response import explain

    try:
        return [
            explain(factory, learning_rate=learning_rate, name=name)
            for name, factory in zip(names, factories, strict=True)
        ]
    except ValueError as error:
        raise OptionError(str(error)) from error


def check_names(names: Sequence[str], learning_rate: float) -> None:
    """Raise OptionError for what is known to be wrong before JAX is imported."""
    if not names:
        raise OptionError(f"name at least one optimizer: {', '.join(OPTIMIZER_NAMES)}")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise OptionError(f"--learning-rate is {learning_rate}, but must be above 0 and finite")
    for name in names:
        if name not in OPTIMIZER_NAMES and name.split(".")[0] not in ("presets", "optax"):
            raise OptionError(
                f"{_unknown(name, OPTIMIZER_NAMES)}; there are {', '.join(OPTIMIZER_NAMES)}, and "
                "presets.SOURCE.NAME, optax.NAME and optax.contrib.NAME"
            )


def _factory(name: str) -> Callable[[Any], Any]:
    """The optimizer of that name as a function of its learning rate alone."""
    from lstm_optax.optimizers import OPTIMIZERS

    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    there = _public()
    if name not in there:
        raise OptionError(_unknown(name, [n for n, make in there.items() if _rate_of(make)]))
    make = there[name]
    rate = _rate_of(make)
    if rate is None:
        raise OptionError(
            f"{name} is no optimizer: it takes no learning rate; if it is a link of a chain, "
            f"measure it in Python, by lstm_optax.explain({name}(…))"
        )
    missing = [
        p.name
        for p in inspect.signature(make).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if others := [argument for argument in missing if argument != rate]:
        given = ", ".join(f"{argument}=…" for argument in others)
        raise OptionError(
            f"{name} needs {', '.join(others)} beside its learning rate; give them in Python, by "
            f"lstm_optax.explain(lambda rate: {name}({rate}=rate, {given}))"
        )
    return lambda value: make(**{rate: value})


def _public() -> dict[str, Any]:
    """What the presets and Optax have to call, by the names under which it is asked for."""
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
    """What a factory calls its learning rate, None if it has none."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some things that can be called have no signature
        return None
    return next((rate for rate in RATES if rate in parameters), None)


def _unknown(name: str, names: Sequence[str]) -> str:
    nearest = get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return f"unknown optimizer {name!r}; the nearest is {nearest!r}"
