"""Measure optimizers by their names; JAX is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lstm_optax.names import OPTIMIZER_NAMES, check_optimizer
from lstm_optax.runs.optimizer_lookup import find_factory
from lstm_optax.runs.options import SMALLEST, OptionError, check_number

if TYPE_CHECKING:
    from lstm_optax.response import Response

__all__ = ["explain_optimizers"]


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
    factories = [find_factory(name) for name in names]
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
    check_number("learning_rate", learning_rate, "above 0", lambda x: x >= SMALLEST)
    for name in names:
        try:
            check_optimizer(name)
        except ValueError as error:
            raise OptionError(str(error)) from None
