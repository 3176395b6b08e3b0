"""RMSprop as in Hinton's lecture."""

import optax

from lstm_optax.checks import DECAY, RATE
from lstm_optax.transforms import mean_square, precondition, scale_by_learning_rate
from lstm_optax.transforms.scalars import Scalar

__all__ = ["rmsprop"]


def rmsprop(
    learning_rate: optax.ScalarOrSchedule, decay: Scalar = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Divide the gradient by its root mean square, without ε.

        ν ← ρ ν + (1 − ρ) g²;  θ ← θ − η g / √ν,  without a step where ν = 0

    The learning rate comes last; the lecture does not suggest a value.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      decay: ρ in [0, 1).

    Raises:
      ValueError: a number is out of range.

    Reference: Tieleman & Hinton, 2012, Coursera "Neural Networks for Machine Learning", lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(decay=decay)
    return optax.chain(
        precondition(optax.identity(), mean_square(decay)), scale_by_learning_rate(learning_rate)
    )
