"""The names of the optimizers, without importing JAX, so that a wrong name fails immediately."""

from dataclasses import dataclass
from difflib import get_close_matches

ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1)
SGD_RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
MOMENTUM_RATES = (0.1, 0.3, 1.0, 3.0, 10.0)  # SGD's, with steps that are up to ten times as large
SIGN_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SLOW_RATES = (3e-3, 1e-2, 3e-2, 0.1, 0.3)  # of rules whose steps are smaller than Adam's
AVERAGED_RATES = (1.0, 3.0, 10.0, 30.0, 100.0)
RATES_BY_WORD = {
    "sign": SIGN_RATES,
    "lion": SIGN_RATES,
    "momentum": MOMENTUM_RATES,
    "sgd": SGD_RATES,
    "gradient_descent": SGD_RATES,
    "muon": SLOW_RATES,
}
"""Default rates of an optimizer outside the table, by the first of these words in its name."""


@dataclass(frozen=True)
class OptimizerInfo:
    """Properties of an optimizer that commands need before they import JAX.

    Attributes:
      name: the name in `OPTIMIZERS`.
      rates: learning rates that a sweep tries by default, about half a decade apart. The best rate
        for a character model of 64 units trained for 300 steps is one of the inner three.
      decays: has an argument `weight_decay` in units of the learning rate. This is False for
        `optax.adafactor`, whose weight decay is not scaled by the learning rate.
      rescales: scales its own learning rate by the `rate_factor` passed to `update`.
    """

    name: str
    rates: tuple[float, ...] = ADAM_RATES
    decays: bool = False
    rescales: bool = False


OPTIMIZER_TABLE = (
    OptimizerInfo("sgd", SGD_RATES),
    OptimizerInfo("momentum_sgd", MOMENTUM_RATES),
    OptimizerInfo("nesterov_sgd", MOMENTUM_RATES),
    OptimizerInfo("rmsprop"),
    OptimizerInfo("rmsprop_momentum", SLOW_RATES),
    OptimizerInfo("adam"),
    OptimizerInfo("nadam"),
    OptimizerInfo("nadamw", decays=True),
    OptimizerInfo("awd_sgd", AVERAGED_RATES, decays=True, rescales=True),
    OptimizerInfo("gate_muon"),
    OptimizerInfo("optax.adamw", decays=True),
    OptimizerInfo("optax.nadam"),
    OptimizerInfo("optax.lion", SIGN_RATES, decays=True),
    OptimizerInfo("optax.adafactor", SLOW_RATES),
    OptimizerInfo("optax.contrib.muon", SLOW_RATES, decays=True),
    OptimizerInfo("optax.contrib.schedule_free_adamw", SLOW_RATES, decays=True),
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


def default_rates(name: str) -> tuple[float, ...]:
    """Return the learning rates that a sweep of an optimizer tries by default, rising.

    Args:
      name: of the table, or any other name, which is judged by its last part alone.
    """
    for info in OPTIMIZER_TABLE:
        if info.name == name:
            return info.rates
    last = name.rpartition(".")[2].lower()
    return next((rates for word, rates in RATES_BY_WORD.items() if word in last), ADAM_RATES)
