"""The learning rate as a link, whose place in a chain is part of a rule's definition."""

import optax

from lstm_optax.transforms.dtypes import keep_dtype
from lstm_optax.transforms.scalars import check_range


def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Scale by the negative learning rate.

        gives −η u

    `optax.scale_by_learning_rate`, except that a traced rate does not change the dtype of the
    updates.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule of this link's own count,
        which is 0 at the first step.

    Raises:
      ValueError: η is a number that is negative or not finite.
    """
    check_range("learning_rate", learning_rate)
    return keep_dtype(optax.scale_by_learning_rate(learning_rate))
