"""The centred RMSprop of Graves, who generated handwriting and text with it."""

import optax

from lstm_optax.checks import DECAY, RATE, SHARE, SIZE
from lstm_optax.transforms import (
    centered_mean_square,
    precondition,
    scale_by_learning_rate,
)
from lstm_optax.transforms import (
    momentum as heavy_ball,
)
from lstm_optax.transforms.scalars import Scalar

__all__ = ["rmsprop"]


def rmsprop(
    learning_rate: optax.ScalarOrSchedule = 1e-4,
    decay: Scalar = 0.95,
    momentum: Scalar = 0.9,
    eps: Scalar = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    """Divide by the root of the variance, then accumulate.

        n ← ℵ n + (1 − ℵ) g²;  ḡ ← ℵ ḡ + (1 − ℵ) g
        Δ ← ℶ Δ − ℷ g / √(n − ḡ² + ℸ);  θ ← θ + Δ

    ε (ℸ) stands inside the root and the learning rate (ℷ) inside the velocity. n − ḡ² is a
    recurrence here that cannot go negative. Graves clipped the derivatives inside the LSTM, to
    [−10, 10], and those of its outputs, to [−100, 100]: no part of this rule.

    Args:
      learning_rate: ℷ ≥ 0; a number, a traced scalar, or a schedule.
      decay: ℵ in [0, 1), of both averages.
      momentum: ℶ in [0, 1].
      eps: ℸ ≥ 0, in units of the squared gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Graves, 2013, arXiv:1308.0850, equations 38–45.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(decay=decay)
    SHARE.check(momentum=momentum)
    SIZE.check(eps=eps)
    return optax.chain(
        precondition(optax.identity(), centered_mean_square(decay), eps_root=eps),
        scale_by_learning_rate(learning_rate),
        heavy_ball(momentum),
    )
