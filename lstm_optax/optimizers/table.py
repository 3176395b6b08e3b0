"""The table of optimizers by name."""

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType

import optax
import optax.contrib

from lstm_optax.names import OPTIMIZER_NAMES
from lstm_optax.optimizers import classic, recurrent


def _factory_of(name: str) -> Callable[..., optax.GradientTransformation]:
    if name.startswith("optax."):
        return reduce(getattr, name.split(".")[1:], optax)
    return getattr(classic if hasattr(classic, name) else recurrent, name)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = MappingProxyType(
    {name: _factory_of(name) for name in OPTIMIZER_NAMES}
)
"""Optimizer factories by name; the first argument of each is the learning rate.

Optax's optimizers for comparison have their full names, such as "optax.adamw"."""
