"""Backward pass of the fused backend.

For t = T − 1 … 0. d_v is ∂L/∂v along all paths; at the start d_h_T, d_c_T are the
cotangents of the last state, afterwards those that step t + 1 passed back:

    d_h_t = d_h_t + d_outputs_t
    d_c_t = d_c_t + d_h_t ⊙ ∂h_t/∂c_t           ∂h_t/∂c_t = o ⊙ (1 − tanh² c_t)
    dz_i = d_c_t ⊙ ∂c_t/∂z_i                    ∂c_t/∂z_i = g ⊙ i ⊙ (1 − i)
    dz_f = d_c_t ⊙ ∂c_t/∂z_f                    ∂c_t/∂z_f = c_{t−1} ⊙ f ⊙ (1 − f)
    dz_g = d_c_t ⊙ ∂c_t/∂z_g                    ∂c_t/∂z_g = i ⊙ (1 − g²)
    dz_o = d_h_t ⊙ ∂h_t/∂z_o                    ∂h_t/∂z_o = tanh(c_t) ⊙ o ⊙ (1 − o)
    d_h_{t−1} = dz_t·W_hhᵀ;  d_c_{t−1} = d_c_t ⊙ f

After the loop, one product each over all steps and rows:

    dW_ih = Σ x_tᵀ·dz_t;  dW_hh = Σ h_{t−1}ᵀ·dz_t;  db = Σ dz_t;  dx_t = dz_t·W_ihᵀ

Masks, for each row of a step: with a reset the step reads h = c = 0, so the cotangent of the state
before it is 0; a row that is not valid keeps its state, so the cotangent passes unchanged.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lstm_optax.lstm.backends.derivatives import Saved
from lstm_optax.lstm.cell import LSTMParams, LSTMState, product
from lstm_optax.lstm.steps import Clip, Steps, before_step


def backward_loop(
    reverse: bool,
    clip: Clip,
    kernel_hh_t: Float[Array, "4*hidden hidden"],
    saved: Saved,
    d_outputs: Float[Array, "time batch hidden"],
    d_last: LSTMState,
    steps: Steps,
    *,
    in_place: bool,
    unroll: int,
) -> tuple[Float[Array, "time batch 4*hidden"], LSTMState]:
    """Return dz of all steps and the cotangent of the first state.

    With `in_place` the loop writes dz_t over the `Saved.by_z` of steps already run.
    """

    def body(carry, inputs):
        (d_state, shared), (t, d_output, h_by_c, c_by_c, by_z, now) = carry, inputs
        if in_place:
            by_z = jax.lax.dynamic_index_in_dim(shared, t, keepdims=False)  # [batch, 4·hidden]
        c_by_i, c_by_f, c_by_g, h_by_o = jnp.split(by_z, 4, axis=-1)  # [batch, hidden] each
        d_state, d_frozen = _split_by_valid(d_state, now.valid)  # h, c [batch, hidden] each
        # A clip replaces the whole derivative, before anything is computed from it.
        d_h = _clip_cotangent(clip, "h", d_state.h + d_output)  # [batch, hidden]
        d_c = _clip_cotangent(clip, "c", d_state.c + d_h * h_by_c)  # [batch, hidden]
        dz = [d_c * c_by_i, d_c * c_by_f, d_c * c_by_g, d_h * h_by_o]  # [batch, hidden] each
        dz = _clip_cotangent(clip, "gates", jnp.concatenate(dz, axis=-1))  # [batch, 4·hidden]
        if in_place:
            shared = jax.lax.dynamic_update_slice(shared, dz[None], (t, 0, 0))
        # From here on, cotangents of the state before the step.
        d_h = product(dz, kernel_hh_t, dz.dtype)  # [batch, hidden]
        if now.detach is not None:
            d_h = jnp.where(now.detach[:, None], 0, d_h)
        # A reset zeroes the state in the forward pass, so it zeroes the cotangent here.
        d_before = before_step(LSTMState(d_h, d_c * c_by_c), now.reset)
        if d_frozen is not None:
            d_before = jax.tree.map(jnp.add, d_before, d_frozen)
        return (d_before, shared), None if in_place else dz

    by_z, shared = (None, saved.by_z) if in_place else (saved.by_z, None)
    inputs = (jnp.arange(d_outputs.shape[0]), d_outputs, saved.h_by_c, saved.c_by_c, by_z, steps)
    (d_first, shared), dz = jax.lax.scan(
        body, (d_last, shared), inputs, reverse=not reverse, unroll=unroll
    )
    dz = shared if in_place else dz
    assert dz is not None
    return dz, d_first


def hoisted_gradients(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    h_before: Float[Array, "time batch hidden"],
    dz: Float[Array, "time batch 4*hidden"],
) -> tuple[LSTMParams, Float[Array, "time batch features"]]:
    """Return the gradients of parameters and inputs, one product each over all steps and rows."""
    d_bias = jnp.sum(dz, (0, 1)).astype(params.bias.dtype)  # [4·hidden]
    factor = dz.astype(params.kernel_ih.dtype)  # [time, batch, 4·hidden], in the products' dtype

    def kernel_gradient(inputs, kernel):
        inputs = inputs.astype(kernel.dtype)  # [time, batch, features or hidden]
        over_time_and_batch = (((0, 1), (0, 1)), ((), ()))
        d_kernel = jax.lax.dot_general(
            inputs, factor, over_time_and_batch, preferred_element_type=dz.dtype
        )
        return d_kernel.astype(kernel.dtype)  # [features or hidden, 4·hidden]

    d_ih, d_hh = kernel_gradient(x, params.kernel_ih), kernel_gradient(h_before, params.kernel_hh)
    dx = product(dz, params.kernel_ih.T, dz.dtype).astype(x.dtype)  # [time, batch, features]
    return LSTMParams(d_ih, d_hh, d_bias), dx


def _split_by_valid(
    d_state: LSTMState, valid: Bool[Array, " batch"] | None
) -> tuple[LSTMState, LSTMState | None]:
    """Return the cotangent of the rows that run this step and of those that skip it, else 0."""
    if valid is None:
        return d_state, None
    valid = valid[:, None]  # [batch, 1]
    return (
        jax.tree.map(lambda d: jnp.where(valid, d, 0), d_state),
        jax.tree.map(lambda d: jnp.where(valid, 0, d), d_state),
    )


def _clip_cotangent(clip: Clip, name: str, d: Float[Array, "batch size"]) -> Array:
    """Return a cotangent with the bound of the field `name` applied."""
    if clip is None:
        return d
    # `mark` is the identity, so any array of the shape may be its input.
    return jax.vjp(partial(clip.mark, name), d)[1](d)[0]
