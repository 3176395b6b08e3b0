"""The names of the optimizers, without importing JAX, so that a wrong name fails immediately."""

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class OptimizerInfo:
    """Properties of an optimizer that commands need before they import JAX.

    Attributes:
      name: the name in `OPTIMIZERS`.
      decays: has an argument `weight_decay` in units of the learning rate. This is False for
        `optax.adafactor`, whose weight decay is not scaled by the learning rate.
      rescales: scales its own learning rate by the `rate_factor` passed to `update`.
    """

    name: str
    decays: bool = False
    rescales: bool = False


OPTIMIZER_TABLE = (
    OptimizerInfo("sgd"),
    OptimizerInfo("momentum_sgd"),
    OptimizerInfo("nesterov_sgd"),
    OptimizerInfo("rmsprop"),
    OptimizerInfo("rmsprop_momentum"),
    OptimizerInfo("adam"),
    OptimizerInfo("nadam"),
    OptimizerInfo("nadamw", decays=True),
    OptimizerInfo("awd_sgd", decays=True, rescales=True),
    OptimizerInfo("gate_muon"),
    OptimizerInfo("optax.adamw", decays=True),
    OptimizerInfo("optax.nadam"),
    OptimizerInfo("optax.lion", decays=True),
    OptimizerInfo("optax.adafactor"),
    OptimizerInfo("optax.contrib.muon", decays=True),
    OptimizerInfo("optax.contrib.schedule_free_adamw", decays=True),
)
OPTIMIZER_NAMES = tuple(info.name for info in OPTIMIZER_TABLE)
DECAYING_OPTIMIZERS = tuple(info.name for info in OPTIMIZER_TABLE if info.decays)
RESCALING_OPTIMIZERS = tuple(info.name for info in OPTIMIZER_TABLE if info.rescales)

PREFIXES = ("presets", "optax")
"""First parts of the names of other optimizers; they are looked up after JAX is imported."""


def check_optimizer(name: str) -> str:
    """Return `name` if it is in `OPTIMIZER_NAMES` or starts with one of `PREFIXES`.

    Raises:
      ValueError: another name; the message lists all names, and the nearest if one is similar.
    """
    if name in OPTIMIZER_NAMES or name.partition(".")[0] in PREFIXES and "." in name:
        return name
    source = name.rpartition(".")[0]
    near = [
        other
        for other in get_close_matches(name.lower(), OPTIMIZER_NAMES, cutoff=0.6)
        if get_close_matches(source, [other.rpartition(".")[0]], cutoff=0.6)
    ]
    raise ValueError(
        f"unknown optimizer {name!r}; {f'the nearest is {near[0]!r}; ' if near else ''}there are "
        f"{', '.join(OPTIMIZER_NAMES)}, and presets.SOURCE.NAME, optax.NAME and optax.contrib.NAME"
    )
