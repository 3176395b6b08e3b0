"""Division of a direction by the square root of a second moment."""

from typing import NamedTuple

import jax
import optax

from lstm_optax.checks import SIZE, check_transformations
from lstm_optax.transforms.derivatives import safe_divide, safe_sqrt
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
    """Divide a direction by the square root of a second moment of the same gradient.

        direction(g) / (√(second_moment(g) + ε_root) + ε),  or 0 if the denominator is 0

    So an entry whose gradient was always zero, such as an unused row of an embedding, does not
    move, even with ε = 0. With ε = 0 the ratio m/√ν of two averages with decays β and ρ is bounded
    only if β² < ρ; if β² > ρ, ν can underflow before m does. The output has the dtype of the
    updates.

    Args:
      direction: an estimator of the direction; `optax.identity()` for the gradient itself.
      second_moment: an estimator of the second moment, whose output is never negative.
      eps: ε ≥ 0, added outside the square root; in units of the gradient.
      eps_root: ε_root ≥ 0, added inside the square root; in units of the squared gradient.

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

    def divide(d, nu):
        return safe_divide(d, safe_sqrt(nu + eps_root) + eps)

    @jax.named_scope("precondition")
    def update(updates, state, params=None, **extra_args):
        d, d_state = direction.update(updates, state.direction, params, **extra_args)
        nu, nu_state = second_moment.update(updates, state.second_moment, params, **extra_args)
        divided = jax.tree.map(divide, d, nu)
        return cast_like(divided, updates), PreconditionState(d_state, nu_state)

    return optax.GradientTransformationExtraArgs(init, update)
