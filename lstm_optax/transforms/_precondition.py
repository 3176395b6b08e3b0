"""The one link that divides: a direction over the root of a size."""

from typing import NamedTuple

import jax
import optax

from lstm_optax.checks import SIZE, check_transformations
from lstm_optax.transforms import derivatives
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import Scalar


class PreconditionState(NamedTuple):
    """State of `precondition`."""

    direction: optax.OptState
    second_moment: optax.OptState


@real_only
def precondition(
    direction: optax.GradientTransformation,
    second_moment: optax.GradientTransformation,
    *,
    eps: Scalar = 0.0,
    eps_root: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Divide a direction by the root of a second moment; both see the same gradient.

        direction(g) / (√(second_moment(g) + ε_root) + ε),  and 0 where that denominator is 0

    An entry whose gradient was always zero, such as an unseen row of an embedding, thus stays
    where it is, even with no ε. With none, the quotient of averages m/√ν stays bounded only where
    β² ≤ ρ: else ν may vanish before m does. Keeps the dtype of the updates.

    Args:
      direction: an estimator of the direction; `optax.identity()` for the gradient itself.
      second_moment: an estimator of the squared size, which is never negative.
      eps: ε ≥ 0, outside the root; in units of the gradient.
      eps_root: ε_root ≥ 0, inside the root; in units of the squared gradient.

    Raises:
      ValueError: ε or ε_root is a negative number.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e.
    """
    check_transformations(direction=direction, second_moment=second_moment)
    SIZE.check(eps=eps, eps_root=eps_root)
    direction = optax.with_extra_args_support(direction)
    second_moment = optax.with_extra_args_support(second_moment)

    def init(params):
        return PreconditionState(direction.init(params), second_moment.init(params))

    def divide(d, size):
        return derivatives.divide(d, derivatives.root(size + eps_root) + eps)

    @jax.named_scope("precondition")
    def update(updates, state, params=None, **extra_args):
        d, d_state = direction.update(updates, state.direction, params, **extra_args)
        size, s_state = second_moment.update(updates, state.second_moment, params, **extra_args)
        divided = jax.tree.map(divide, d, size)
        return cast_like(divided, updates), PreconditionState(d_state, s_state)

    return optax.GradientTransformationExtraArgs(init, update)
