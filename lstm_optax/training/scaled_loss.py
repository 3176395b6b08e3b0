"""The loss times the scale that the optimizer asks for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.transforms import LossScalingState, find_states


def loss_scale(opt_state: optax.OptState) -> jax.Array | None:
    """Return the scale of the next loss; None without `loss_scaling`.

    Raises:
      ValueError: another transformation is around `loss_scaling`.
    """
    if isinstance(opt_state, LossScalingState):
        return opt_state.scale
    if find_states(opt_state, LossScalingState):
        raise ValueError(
            "loss_scaling is inside another transformation, which would receive the gradient of "
            "the scaled loss: put it outermost, such as loss_scaling(guard(optimizer))"
        )
    return None


def scaled_loss(loss: Callable[..., Any], scale: jax.Array | None) -> Callable[..., Any]:
    """Return the function (loss times the scale, (loss, new carry)) of a loss."""

    def scaled(params: Any, carry: Any, batch: Any, key: jax.Array) -> Any:
        value, carry = loss(params, carry, batch, key)
        if scale is None:
            return value, (value, carry)
        wide = jnp.promote_types(jnp.result_type(value), jnp.float32)
        return value * scale.astype(wide), (value, carry)

    return scaled
