"""Measure optimizers by name; JAX is imported on demand."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from lstm_optax.names import OPTIMIZER_NAMES, check_optimizer
from lstm_optax.runs.constraints import POSITIVE, OptionError, check_option
from lstm_optax.runs.hyper_parameters import parse_settings, split_settings
from lstm_optax.runs.optimizer_lookup import find_factory

if TYPE_CHECKING:
    from lstm_optax.response import Response

__all__ = ["explain_optimizers"]


def explain_optimizers(
    names: Sequence[str], *, learning_rate: float = 1e-3, settings: Sequence[str] = ()
) -> "list[Response]":
    """Measure each named optimizer with `explain`.

    Args:
      names: names of `OPTIMIZERS`, `presets.<source>.<name>`, `optax.<name>`, or
        `optax.contrib.<name>`.
      learning_rate: above 0; every optimizer is built with it.
      settings: hyper-parameters of every optimizer, each a text such as "b2=0.99".

    Raises:
      OptionError: a name is unknown, is not an optimizer, an optimizer lacks a hyper-parameter or
        rejects its value, or the optimizer cannot be measured.
    """
    check_names(names, learning_rate, settings)
    options = [parse_settings(name, settings) for name in names]
    factories = [
        partial(find_factory(name, given=values), **values)
        for name, values in zip(names, options, strict=True)
    ]
    from lstm_optax.response import explain

    try:
        return [
            explain(factory, learning_rate=learning_rate, name=name)
            for name, factory in zip(names, factories, strict=True)
        ]
    except ValueError as error:
        raise OptionError(str(error)) from error


def check_names(names: Sequence[str], learning_rate: float, settings: Sequence[str] = ()) -> None:
    """Raise OptionError for invalid arguments that can be detected without JAX."""
    if not names:
        raise OptionError(f"name at least one optimizer: {', '.join(OPTIMIZER_NAMES)}")
    check_option("learning_rate", learning_rate, POSITIVE)
    split_settings(settings)
    for name in names:
        try:
            check_optimizer(name)
        except ValueError as error:
            raise OptionError(str(error)) from None
