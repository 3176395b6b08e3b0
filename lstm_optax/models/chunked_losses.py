"""The cross-entropy of many classes in bounded memory: logits of a few tokens at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lstm_optax.models.losses import token_losses


def chunked_losses(
    logits_of: Callable[[Any, Any], jax.Array],
    module: nnx.Module,
    hidden: Float[Array, "*axes hidden"],
    targets: Int[Array, "*axes"],
    size: int,
) -> Float[Array, ""]:
    """Return the sum of `token_losses(logits_of(module, hidden), targets)`.

    The logits are computed for `size` tokens at a time, and only for tokens with a target of 0 or
    more. The gradient is computed together with the loss, chunk by chunk, so no logits are stored;
    it is for reverse mode only.
    """
    graphdef, params = nnx.split(module)

    def loss_of(params: Any, hidden: Any, targets: Any) -> jax.Array:
        return token_losses(logits_of(nnx.merge(graphdef, params), hidden), targets)[0]

    hidden, targets = jnp.asarray(hidden), jnp.asarray(targets)
    return _sum(loss_of, size, params, hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(
    loss_of: Callable[..., jax.Array], size: int, params: Any, hidden: Any, targets: Any
) -> jax.Array:
    def add(total, index, h, t):
        return total + loss_of(params, h, t)

    return _over_chunks(add, _zero(loss_of, params, hidden, targets), size, hidden, targets)


def _forward(
    loss_of: Callable[..., jax.Array], size: int, params: Any, hidden: Any, targets: Any
) -> tuple[jax.Array, Any]:
    def add(state, index, h, t):
        total, d_params, d_hidden = state
        loss, (more, d_h) = jax.value_and_grad(loss_of, argnums=(0, 1))(params, h, t)
        d_params = jax.tree.map(jnp.add, d_params, more)
        return total + loss, d_params, d_hidden.at[index].set(d_h, mode="drop")

    zeros = jax.tree.map(jnp.zeros_like, (params, hidden))
    start = (_zero(loss_of, params, hidden, targets), *zeros)
    total, *gradients = _over_chunks(add, start, size, hidden, targets)
    return total, gradients


def _backward(loss_of: Any, size: int, gradients: Any, cotangent: jax.Array) -> Any:
    scaled = jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), gradients)
    return *scaled, None


_sum.defvjp(_forward, _backward)


def _over_chunks(add: Callable[..., Any], start: Any, size: int, hidden: Any, targets: Any) -> Any:
    """Return `start` after `add(state, index, hidden, targets)` for each chunk of tokens."""
    tokens = len(targets)
    order = jnp.argsort(targets < 0, stable=True)  # the tokens that count, then the others
    order = jnp.pad(order, (0, -tokens % size), constant_values=tokens)
    chunks = -(-jnp.sum(targets >= 0) // size)

    def body(i, state):
        index = jax.lax.dynamic_slice(order, (i * size,), (size,))
        h = hidden.at[index].get(mode="fill", fill_value=0)
        t = targets.at[index].get(mode="fill", fill_value=-1)
        return add(state, index, h, t)

    return jax.lax.fori_loop(0, chunks, body, start)


def _zero(loss_of: Any, params: Any, hidden: Any, targets: Any) -> jax.Array:
    return jnp.zeros([], jax.eval_shape(loss_of, params, hidden[:1], targets[:1]).dtype)
