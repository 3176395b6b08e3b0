"""The names of the optimizers, kept where no JAX is imported, so that a wrong one fails at once."""

from difflib import get_close_matches

OPTIMIZER_NAMES = (
    "sgd",
    "momentum_sgd",
    "nesterov_sgd",
    "rmsprop",
    "rmsprop_momentum",
    "adam",
    "nadam",
    "nadamw",
    "awd_sgd",
    "gate_muon",
    "optax.adamw",
    "optax.nadam",
    "optax.lion",
    "optax.adafactor",
    "optax.contrib.muon",
    "optax.contrib.schedule_free_adamw",
)
SOURCES = ("presets", "optax")
"""What the names of other optimizers begin with; whether there is such a one needs JAX."""


def check_optimizer(name: str) -> str:
    """Return `name` if it names an optimizer or one of `SOURCES`, else raise ValueError.

    The error names the nearest, where one is near, and all there are.
    """
    if name in OPTIMIZER_NAMES or name.partition(".")[0] in SOURCES and "." in name:
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
