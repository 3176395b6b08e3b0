"""Measure optimizers by name; JAX is imported on demand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lstm_optax.names import OPTIMIZER_NAMES, check_optimizer
from lstm_optax.runs.constraints import POSITIVE, OptionError, check_option
from lstm_optax.runs.optimizer_lookup import find_factory

if TYPE_CHECKING:
    from lstm_optax.response import Response

__all__ = ["explain_optimizers"]


def explain_optimizers(names: Sequence[str], *, learning_rate: float = 1e-3) -> "list[Response]":
    """Measure each named optimizer with `explain`.

    Args:
      names: names of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or
        `optax.contrib.<name>`.
      learning_rate: above 0; every optimizer is built with it.

    Raises:
      OptionError: a name is unknown, is not an optimizer, or the optimizer cannot be measured.
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
    """Raise OptionError for invalid arguments that can be detected without JAX."""
    if not names:
        raise OptionError(f"name at least one optimizer: {', '.join(OPTIMIZER_NAMES)}")
    check_option("learning_rate", learning_rate, POSITIVE)
    for name in names:
        try:
            check_optimizer(name)
        except ValueError as error:
            raise OptionError(str(error)) from None
