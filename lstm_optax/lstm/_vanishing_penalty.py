"""A penalty on gradients that shrink or grow on their way back through time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.cotangents import norm
from lstm_optax.lstm.sequence import lstm_sequence, zero_state

SMALLEST = 1e-10  # of a gradient whose change of size still means something


def vanishing_penalty(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    carry: LSTMState | None,
    loss: Callable[[Float[Array, "time batch hidden"]], jax.Array],
    *,
    resets: Bool[Array, "time batch"] | None = None,
) -> Float[Array, ""]:
    """Return how far the steps of an LSTM are from keeping the norm of the gradient.

        Ω = mean over rows of Σₜ (‖λₜ ∂sₜ/∂sₜ₋₁‖ / ‖λₜ‖ − 1)²,  λₜ = ∂L/∂sₜ,  s = (h, c)

    The state s of an LSTM is h and c together: the gradient may vanish through h as long as c
    carries it. As in the paper, only the Jacobian ∂sₜ/∂sₜ₋₁ is differentiated by `params`: the
    states, the inputs and λ are constants, so that no gradient goes to x, the carry or what `loss`
    is made of. A term whose ‖λₜ‖ is below 1e-10 or not finite is 0, and so is one
    across a reset.

    Add it, times a weight, to the loss: L + 2 Ω, say. It costs two to three gradients of the
    layer, and keeps the states and λ of all steps.

    Args:
      params, x, carry, resets: as `lstm_sequence` takes them.
      loss: outputs of the layer → the loss L, all layers above included; the sum or the mean over
        the batch, since λ's size does not matter.

    Raises:
      ValueError: shapes that do not fit.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, equations 9 and 10.
    """
    fixed, x = jax.lax.stop_gradient((params, x))
    outputs, _ = lstm_sequence(fixed, x, carry, resets=resets)  # checks the shapes, too
    dtype = jnp.promote_types(outputs.dtype, jnp.float32)
    start = zero_state(x.shape[1], params.kernel_hh.shape[0]) if carry is None else carry
    start = jax.tree.map(lambda s: jax.lax.stop_gradient(jnp.asarray(s, dtype)), start)
    fresh = jnp.zeros(x.shape[:2], bool) if resets is None else jnp.asarray(resets, bool)
    before = _states(fixed, x, start, fresh)
    pulls = jax.grad(loss)(outputs).astype(dtype)
    adjoints = jax.lax.stop_gradient(_adjoints(fixed, x, before, fresh, pulls))

    def transport(x, state, adjoint):
        return jax.vjp(lambda s: lstm_cell(params, x, s), state)[1](adjoint)[0]

    size = norm(jnp.concatenate(adjoints, -1))
    counted = (size >= SMALLEST) & jnp.isfinite(size) & ~fresh
    unit = jax.tree.map(lambda a: a / jnp.where(counted, size, 1)[..., None], adjoints)
    moved = jnp.concatenate(jax.vmap(transport)(x, before, unit), -1)
    squares = jnp.sum(jnp.square(moved), -1)
    ratio = jnp.sqrt(jnp.where(squares > 0, squares, 1)) * (squares > 0)  # no derivative at 0
    return jnp.sum(jnp.mean(jnp.where(counted, jnp.square(ratio - 1), 0), 1))


def _states(params, x, start: LSTMState, fresh) -> LSTMState:
    """The state that each step reads."""

    def body(state, inputs):
        x, fresh = inputs
        state = jax.tree.map(lambda s: jnp.where(fresh[:, None], 0, s), state)
        return lstm_cell(params, x, state), state

    return jax.lax.scan(body, start, (x, fresh))[1]


def _adjoints(params, x, before: LSTMState, fresh, pulls) -> LSTMState:
    """The gradient of the loss by the state after each step."""

    def body(later: LSTMState, inputs):
        x, state, fresh, pull = inputs
        adjoint = LSTMState(later.h + pull, later.c)
        back = jax.vjp(lambda s: lstm_cell(params, x, s), state)[1](adjoint)[0]
        return jax.tree.map(lambda s: jnp.where(fresh[:, None], 0, s), back), adjoint

    end = jax.tree.map(lambda s: jnp.zeros_like(s[0]), before)
    return jax.lax.scan(body, end, (x, before, fresh, pulls), reverse=True)[1]
