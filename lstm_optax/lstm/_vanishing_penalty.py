"""Penalty on gradients that shrink or grow as they flow back through time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.cotangents import norm
from lstm_optax.lstm.sequence import lstm_sequence, zero_state
from lstm_optax.lstm.steps import before_step

SMALLEST = 1e-10  # below it, a change of the norm is rounding


def vanishing_penalty(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    carry: LSTMState | None,
    loss: Callable[[Float[Array, "time batch hidden"]], jax.Array],
    *,
    resets: Bool[Array, "time batch"] | None = None,
) -> Float[Array, ""]:
    """Return a penalty on the change of the gradient's norm at each step of an LSTM.

        Ω = mean over rows of Σₜ (‖λₜ ∂sₜ/∂sₜ₋₁‖ / ‖λₜ‖ − 1)²,  λₜ = ∂L/∂sₜ,  s = (h, c)

    The state s of an LSTM is h and c together: the gradient may vanish through h as long as c
    carries it. As in the paper, only the Jacobian ∂sₜ/∂sₜ₋₁ is differentiated with respect to
    `params`. States, inputs and λ are constants, so no gradient flows to x, to the carry or to
    parameters inside `loss`. A term is 0 if its ‖λₜ‖ is below 1e-10 or not finite, or if the step
    has a reset.

    Add it to the loss with a weight, for example L + 2 Ω. It costs two to three gradients of the
    layer, and stores the states and λ of all steps.

    Args:
      params, x, carry, resets: as in `lstm_sequence`.
      loss: maps the outputs of the layer to the loss L, including all layers above; a sum or a
        mean over the batch, since the scale of λ does not matter.

    Raises:
      ValueError: a wrong shape.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, equations 9 and 10.
    """
    fixed, x = jax.lax.stop_gradient((params, x))
    outputs, _ = lstm_sequence(fixed, x, carry, resets=resets)  # also checks the shapes
    dtype = jnp.promote_types(outputs.dtype, jnp.float32)
    start = zero_state(x.shape[1], params.kernel_hh.shape[0]) if carry is None else carry
    start = jax.tree.map(lambda s: jax.lax.stop_gradient(jnp.asarray(s, dtype)), start)
    reset = jnp.zeros(x.shape[:2], bool) if resets is None else jnp.asarray(resets, bool)
    before = _states_before_steps(fixed, x, start, reset)  # h, c [time, batch, hidden]
    d_outputs = jax.grad(loss)(outputs).astype(dtype)  # [time, batch, hidden]
    d_states = jax.lax.stop_gradient(_state_gradients(fixed, x, before, reset, d_outputs))  # λ

    def pull_back(x, state, d_state):
        return jax.vjp(lambda s: lstm_cell(params, x, s), state)[1](d_state)[0]

    size = norm(jnp.concatenate(d_states, -1))  # ‖λ‖, [time, batch]
    counted = (size >= SMALLEST) & jnp.isfinite(size) & ~reset
    unit = jax.tree.map(lambda d: d / jnp.where(counted, size, 1)[..., None], d_states)
    moved = jnp.concatenate(jax.vmap(pull_back)(x, before, unit), -1)  # [time, batch, 2·hidden]
    squares = jnp.sum(jnp.square(moved), -1)  # [time, batch]
    ratio = jnp.sqrt(jnp.where(squares > 0, squares, 1)) * (squares > 0)  # no derivative at 0
    return jnp.sum(jnp.mean(jnp.where(counted, jnp.square(ratio - 1), 0), 1))


def _states_before_steps(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    start: LSTMState,
    reset: Bool[Array, "time batch"],
) -> LSTMState:
    """Return the state that each step reads, [time, batch, hidden]."""

    def body(state, inputs):
        x, reset = inputs
        state = before_step(state, reset)
        return lstm_cell(params, x, state), state

    return jax.lax.scan(body, start, (x, reset))[1]


def _state_gradients(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    before: LSTMState,
    reset: Bool[Array, "time batch"],
    d_outputs: Float[Array, "time batch hidden"],
) -> LSTMState:
    """Return λ, the gradient of the loss with respect to the state after each step."""

    def body(d_state: LSTMState, inputs):
        x, state, reset, d_output = inputs
        d_state = LSTMState(d_state.h + d_output, d_state.c)
        d_before = jax.vjp(lambda s: lstm_cell(params, x, s), state)[1](d_state)[0]
        return before_step(d_before, reset), d_state

    d_last = jax.tree.map(lambda s: jnp.zeros_like(s[0]), before)  # [batch, hidden]
    return jax.lax.scan(body, d_last, (x, before, reset, d_outputs), reverse=True)[1]
