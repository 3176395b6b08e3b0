"""How soon momentum leaves a saddle: the exact solution of its linear recurrence."""

import math
from typing import NamedTuple

from lstm_optax.checks import FACTOR, SHARE, Range, check_choice

RULES = ("sgd", "momentum_sgd", "nesterov_sgd")
_DELTA = Range(above=True)


class EscapeLaw(NamedTuple):
    """The growth of the displacement from the stable line, after t steps δ A ρᵗ."""

    growth: float  # ρ, factor of one step
    amplitude: float  # A, share of the displacement that grows

    def steps(self, delta: float) -> float:
        """Return the time at which a displacement δ has grown to 1: log(1/(A δ)) / log ρ."""
        _DELTA.check(delta=delta)
        return -math.log(self.amplitude * delta) / math.log(self.growth)


def escape_law(
    rule: str, *, learning_rate: float, momentum: float = 0.9, curvature: float = 2.0
) -> EscapeLaw:
    """Return how the displacement y grows on −½ λ y², from y = δ without velocity.

    The gradient is −λ y, so each rule is a linear recurrence of two steps. ρ is the larger root of
    its characteristic polynomial, and with a = η λ, the polynomial and the first step y₁/δ are

        sgd            ρ² − (1 + a) ρ                          1 + a
        momentum_sgd   ρ² − (1 + μ + a) ρ + μ                  1 + a
        nesterov_sgd   ρ² − (1 + μ) (1 + a) ρ + μ (1 + a)      1 + (1 + μ) a

    With r the smaller root, yₜ = δ (A ρᵗ + (1 − A) rᵗ), so A = (y₁/δ − r) / (ρ − r). As r < 1, the
    second term vanishes, and y reaches 1 after log(1/(A δ)) / log ρ steps.

    Args:
      rule: "sgd", "momentum_sgd" or "nesterov_sgd".
      learning_rate: η > 0.
      momentum: μ in [0, 1]; not used by "sgd".
      curvature: λ > 0; 2 for the saddle x² − y².

    Raises:
      ValueError: an unknown rule, or a number out of range.

    Reference: Polyak, 1964, doi:10.1016/0041-5553(64)90137-5, for the polynomial of the heavy ball.
    """
    check_choice("rule", rule, RULES)
    FACTOR.check(learning_rate=learning_rate, curvature=curvature)
    SHARE.check(momentum=momentum)
    a = learning_rate * curvature
    first = 1 + a
    trace, product = {
        "sgd": (1 + a, 0.0),
        "momentum_sgd": (1 + momentum + a, momentum),
        "nesterov_sgd": ((1 + momentum) * (1 + a), momentum * (1 + a)),
    }[rule]
    if rule == "nesterov_sgd":
        first += momentum * a
    root = math.sqrt(trace**2 / 4 - product)
    growth, other = trace / 2 + root, trace / 2 - root
    return EscapeLaw(growth, (first - other) / (growth - other))
