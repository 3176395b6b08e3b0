"""Centred RMSprop from Graves' paper on generating text and handwriting."""

import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import DECAY, RATE, SHARE, SIZE
from lstm_optax.transforms.scalars import Scalar

__all__ = ["rmsprop"]


def rmsprop(
    learning_rate: optax.ScalarOrSchedule = 1e-4,
    decay: Scalar = 0.95,
    momentum: Scalar = 0.9,
    eps: Scalar = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    """Divide by the square root of the variance, then accumulate momentum.

        n ← ℵ n + (1 − ℵ) g²;  ḡ ← ℵ ḡ + (1 − ℵ) g
        Δ ← ℶ Δ − ℷ g / √(n − ḡ² + ℸ);  θ ← θ + Δ

    ε (ℸ) is added inside the square root; the learning rate (ℷ) is inside the velocity. n − ḡ² is
    computed by a recurrence that cannot become negative. Graves also clipped derivatives, inside
    the LSTM to [−10, 10] and at its outputs to [−100, 100]; that is not part of this rule.

    Args:
      learning_rate: ℷ ≥ 0; a number, a traced scalar, or a schedule.
      decay: ℵ in [0, 1), the decay of both averages.
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
        tx.precondition(optax.identity(), tx.centered_mean_square(decay), eps_root=eps),
        tx.scale_by_learning_rate(learning_rate),
        tx.momentum(momentum),
    )
