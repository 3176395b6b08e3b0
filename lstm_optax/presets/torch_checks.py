"""Argument checks that several of the PyTorch presets share."""

import optax

from lstm_optax.checks import DECAY, RATE, SIZE, TRACED, concrete, format_value
from lstm_optax.transforms.scalars import Scalar


def check_adaptive(
    lr: optax.ScalarOrSchedule, betas: tuple[Scalar, Scalar], eps: Scalar, weight_decay: Scalar
) -> tuple[Scalar, Scalar]:
    """Return the two betas; raise ValueError for the first argument out of range."""
    RATE.check(lr=lr)
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas is {format_value(betas)}, but must be a pair of numbers in [0, 1)")
    DECAY.check(**{f"betas[{i}]": beta for i, beta in enumerate(betas)})
    SIZE.check(eps=eps, weight_decay=weight_decay)
    return betas[0], betas[1]


def check_nesterov(momentum: Scalar, dampening: Scalar) -> None:
    """Raise ValueError for Nesterov momentum with momentum 0 or with dampening."""
    for name, value, zero in (("momentum", momentum, True), ("dampening", dampening, False)):
        number = concrete(value)
        if number is not TRACED and (number == 0) == zero:
            raise ValueError(
                f"{name} is {number}, but nesterov needs momentum and no dampening, such as "
                "momentum=0.9, dampening=0"
            )
