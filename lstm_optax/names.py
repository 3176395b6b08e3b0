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


def check_optimizer(name: str) -> str:
    """Return `name` if it names an optimizer, else raise ValueError with the nearest that does."""
    if name in OPTIMIZER_NAMES:
        return name
    nearest = get_close_matches(name, OPTIMIZER_NAMES, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown optimizer {name!r}; the nearest is {nearest!r}, "
        f"and there are {', '.join(OPTIMIZER_NAMES)}"
    )
