"""Find optimizers by name; JAX is imported on demand."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from types import ModuleType
from typing import Any

from lstm_optax.names import check_optimizer
from lstm_optax.runs.argument_kinds import HyperParameter, describe_argument
from lstm_optax.runs.constraints import OptionError

RATE_ARGUMENTS = ("learning_rate", "lr")


@dataclass(frozen=True)
class OptimizerFactory:
    """A named optimizer: a function of the learning rate and of its other arguments.

    Attributes:
      name: under which it was found.
      make: the function of the library, of a preset or of Optax.
      rate: name of the learning-rate argument of `make`.
    """

    name: str
    make: Callable[..., Any]
    rate: str

    @cached_property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """The arguments of `make` except the learning rate, by name."""
        return {
            name: argument
            for name, argument in inspect.signature(self.make).parameters.items()
            if name != self.rate
            and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        }

    @cached_property
    def hyper_parameters(self) -> dict[str, HyperParameter]:
        """The arguments that are numbers, flags or choices, by name."""
        found = chain.from_iterable(map(describe_argument, self.arguments.values()))
        return {parameter.name: parameter for parameter in found}

    def check_required(self, given: Collection[str]) -> None:
        """Raise OptionError if an argument has no default and is not in `given`."""
        missing = [
            name
            for name, argument in self.arguments.items()
            if argument.default is argument.empty and name not in given
        ]
        if not missing:
            return
        call = ", ".join(f"{argument}=…" for argument in (self.rate, *missing))
        remedy = f"call it in Python: {self.name}({call})"
        if set(missing) <= set(self.hyper_parameters):
            remedy = f"pass {' '.join(f'--set {name}=…' for name in missing)}, or {remedy}"
        raise OptionError(
            f"{self.name} needs {', '.join(missing)} in addition to its learning rate; {remedy}"
        )

    def __call__(self, learning_rate: Any, **options: Any) -> Any:
        """Return the optimizer; `betas.0` in the options replaces an element of `betas`."""
        whole = {name: value for name, value in options.items() if "." not in name}
        for name in options.keys() - whole.keys():
            argument, _, index = name.partition(".")
            elements = list(whole.get(argument, self.arguments[argument].default))
            elements[int(index)] = options[name]
            whole[argument] = tuple(elements)
        return self.make(**{self.rate: learning_rate}, **whole)


def find_factory(name: str, given: Collection[str] = ()) -> OptimizerFactory:
    """Return the factory of a named optimizer, a function of the learning rate and of options.

    Args:
      name: of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or `optax.contrib.<name>`.
      given: names of the options that the caller passes to the factory.

    Raises:
      OptionError: the name is unknown, or the optimizer has other required arguments.
    """
    factory = find_optimizer(name)
    factory.check_required(given)
    return factory


def find_optimizer(name: str) -> OptimizerFactory:
    """Return the factory of a named optimizer, which may have other required arguments.

    Raises:
      OptionError: the name is unknown, or is not an optimizer.
    """
    from lstm_optax.optimizers import OPTIMIZERS

    if name in OPTIMIZERS:
        return OptimizerFactory(name, OPTIMIZERS[name], RATE_ARGUMENTS[0])
    try:
        check_optimizer(name)
    except ValueError as error:
        raise OptionError(str(error)) from None
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
    return OptimizerFactory(name, callables[name], rate)


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
