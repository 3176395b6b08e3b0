"""The table of all optimizers there are."""

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType

import optax
import optax.contrib

from lstm_optax.names import OPTIMIZER_NAMES
from lstm_optax.optimizers import classic, recurrent


def _find(name: str) -> Callable[..., optax.GradientTransformation]:
    if name.startswith("optax."):
        return reduce(getattr, name.split(".")[1:], optax)
    return getattr(classic if hasattr(classic, name) else recurrent, name)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = MappingProxyType(
    {name: _find(name) for name in OPTIMIZER_NAMES}
)
"""Every optimizer by name, each called with its learning rate first; Optax's own under their full
names, so that they can be compared."""
