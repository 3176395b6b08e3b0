"""Nadam in the two forms that Dozat published: the report of 2015 and the paper of 2016."""

import optax

from lstm_optax.checks import DECAY, RATE, SIZE
from lstm_optax.transforms import (
    debias,
    dozat_momentum,
    keep_dtype,
    mean_square,
    precondition,
    scale_by_learning_rate,
)
from lstm_optax.transforms.scalars import Scalar

__all__ = ["nadam_2015", "nadam_2016"]

PSI = 1 / 250  # ψ of `dozat_momentum`


def nadam_2015(
    learning_rate: optax.ScalarOrSchedule = 0.002,
    mu: Scalar = 0.9,
    nu: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Apply Adam with a scheduled look-ahead and an average with constant μ (the report).

        μₜ = μ (1 − ½ · 0.96^(t/250)),  Pₜ = μ₁ … μₜ
        m ← μ m + (1 − μ) g;  n ← ν n + (1 − ν) g²
        m̄ = (1 − μₜ) g/(1 − Pₜ) + μₜ₊₁ m/(1 − Pₜ₊₁);  θ ← θ − η m̄ / (√(n/(1 − νᵗ)) + ε)

    ε is added outside the square root, after the bias correction; the learning rate comes last. The
    Nadam of PyTorch and of TF-Keras 2 is this rule.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      mu: μ in [0, 1).
      nu: ν in [0, 1).
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Dozat, 2015, "Incorporating Nesterov Momentum into Adam", Stanford CS229 report 054.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(mu=mu, nu=nu)
    SIZE.check(eps=eps)
    return optax.chain(
        precondition(dozat_momentum(mu, PSI), debias(mean_square(nu), nu), eps=eps),
        scale_by_learning_rate(learning_rate),
    )


def nadam_2016(
    learning_rate: optax.ScalarOrSchedule = 0.002,
    mu: Scalar = 0.9,
    nu: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Apply Adam with a scheduled look-ahead and an average with μₜ (the paper, algorithm 2).

        μₜ = μ (1 − ½ · 0.96^(t/250)),  Pₜ = μ₁ … μₜ
        m ← μₜ m + (1 − μₜ) g;  n ← ν n + (1 − ν) g²
        m̂ = μₜ₊₁ m/(1 − Pₜ₊₁) + (1 − μₜ) g/(1 − Pₜ);  n̂ = ν n/(1 − νᵗ)
        θ ← θ − η m̂ / (√n̂ + ε)

    ε is added outside the square root; the learning rate comes last. n̂ has an additional factor ν
    compared with the report, PyTorch and Keras, so for a constant gradient the step converges to
    η/√ν.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      mu: μ in [0, 1).
      nu: ν in [0, 1).
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Dozat, 2016, ICLR workshop, "Incorporating Nesterov Momentum into Adam".
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(mu=mu, nu=nu)
    SIZE.check(eps=eps)
    second_moment = optax.chain(debias(mean_square(nu), nu), keep_dtype(optax.scale(nu)))
    return optax.chain(
        precondition(dozat_momentum(mu, PSI, scheduled_average=True), second_moment, eps=eps),
        scale_by_learning_rate(learning_rate),
    )
