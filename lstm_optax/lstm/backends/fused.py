"""Fast backend: work outside the recurrence is hoisted out of the time loop, in both passes.

Forward, for t = 0 … T − 1, gates in the order i, f, g, o:

    z_t = x_t·W_ih + h_{t−1}·W_hh + b           x·W_ih is one product before the loop
    i, f, o = σ(z_i), σ(z_f), σ(z_o);  g = tanh(z_g)
    c_t = f ⊙ c_{t−1} + i ⊙ g;  h_t = o ⊙ tanh(c_t)

Backward, for t = T − 1 … 0. d_v is ∂L/∂v along all paths; at the start d_h_T, d_c_T are the
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

The forward pass stores h_{t−1}, f, ∂h/∂c and the four ∂/∂z ("stored"), or h_{t−1} and c_{t−1}, from
which the backward pass recomputes the others for all steps at once ("remat").

Masks, for each row of a step: with a reset the step reads h = c = 0, so the cotangent of the state
before it is 0; a row that is not valid keeps its state, so the cotangent passes unchanged.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.lstm.backends.derivatives import (
    Saved,
    apply_halved_gates,
    halve_sigmoid_gates,
    recompute_saved,
)
from lstm_optax.lstm.backends.hoisted import hoisted_sequence
from lstm_optax.lstm.cell import LSTMParams, LSTMState, product
from lstm_optax.lstm.steps import Clip, Gradient, Steps, after_step, before_step

_CACHE_ENTRIES = 2**23
"""Largest x·W_ih, in entries, to hoist on a CPU; measured by `tests/lstm/measure_forward.py`."""


class Residuals(NamedTuple):
    """Values that the forward pass keeps for the backward pass."""

    params: LSTMParams
    x: Float[Array, "time batch features"]
    saved: Saved | LSTMState  # an LSTMState [time, batch, hidden] for gradient="remat"
    steps: Steps
    clip: Clip


def fused_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one recurrent product and one tanh for all gates at each step, in both passes.

        tanh of (½z_i, ½z_f, z_g, ½z_o) yields all gates, since σ(z) = ½ tanh(½z) + ½

    The product of all inputs with kernel_ih is one, before the loop. The backward loop has one
    product with kernel_hhᵀ; the gradients of kernels, bias and inputs are one product each after
    it. "stored" keeps 7 numbers for each hidden unit, row and step; "remat" keeps h and c, and
    recomputes the others from them, all steps at once.

    "autodiff" leaves the gradient to JAX. It supports forward mode, and is used for a `probe`.
    """
    if gradient == "autodiff" or steps.probe is not None or x.shape[0] == 0:
        return hoisted_sequence(params, x, state, steps, reverse, clip)
    return _fused_sequence(reverse, gradient, params, x, state, steps, clip)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused_sequence(
    reverse: bool,
    gradient: Gradient,
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    clip: Clip,
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run the sequence without a gradient, so nothing is saved."""
    del gradient, clip

    def run(hoist):
        return lambda *inputs: _forward_loop(reverse, None, *inputs, hoist=hoist)[:2]

    def run_on_cpu(*inputs):
        # Nothing has to be saved, so on a CPU a buffer larger than the cache only costs time.
        fits = _fits_cache(x.shape[0], x.shape[1], params.kernel_ih.shape[1])
        if isinstance(fits, bool):
            return run(hoist=fits)(*inputs)
        return jax.lax.cond(fits, run(hoist=True), run(hoist=False), *inputs)

    inputs = (params, x, state, steps)
    return jax.lax.platform_dependent(*inputs, cpu=run_on_cpu, default=run(hoist=True))


def _fits_cache(*sizes: int) -> bool | jax.Array:
    """Return whether an array of this shape fits; a traced bool for symbolic sizes of an export."""
    if all(isinstance(size, int) for size in sizes):
        return math.prod(sizes) <= _CACHE_ENTRIES
    factors = [jnp.asarray(size, jnp.float32) for size in sizes]  # no overflow, exact up to 2²⁴
    return math.prod(factors) <= _CACHE_ENTRIES


def _fused_sequence_forward(
    reverse: bool,
    gradient: Gradient,
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    clip: Clip,
) -> tuple[tuple[Float[Array, "time batch hidden"], LSTMState], Residuals]:
    outputs, last, saved = _forward_loop(reverse, gradient, params, x, state, steps)
    assert saved is not None
    return (outputs, last), Residuals(params, x, saved, steps, clip)


def _forward_loop(
    reverse: bool,
    gradient: Gradient | None,
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    *,
    hoist: bool = True,
) -> tuple[Float[Array, "time batch hidden"], LSTMState, Saved | LSTMState | None]:
    """Return outputs, last state, and the arrays that `gradient` saves (None: nothing).

    The loop works in place on one array over time. Its entries of steps to come are x_t·W_ih, or
    x_t with hoist=False; with "stored", those of steps already run are `LocalDerivatives.by_z`.
    """
    params = halve_sigmoid_gates(params)
    hidden, dtype = state.h.shape[-1], state.c.dtype
    # Adding the bias before the loop would be one more pass over all steps.
    bias = params.bias.astype(dtype)[None]  # [1, 4·hidden]

    def body(carry, inputs):
        (state, in_place), (t, reset, valid) = carry, inputs
        state = before_step(state, reset)  # h, c [batch, hidden]
        z = jax.lax.dynamic_index_in_dim(in_place, t, keepdims=False)  # [batch, 4·hidden], or x_t
        z = z if hoist else product(z, params.kernel_ih, dtype)
        z = z + product(state.h, params.kernel_hh, dtype) + bias  # [batch, 4·hidden]
        new, derivatives = apply_halved_gates(z, state.c)
        if gradient == "stored":
            # Four updates in place; a concatenation first would be a copy.
            for k, derivative in enumerate(derivatives.by_z):  # [batch, hidden]
                at = (t, 0, k * hidden)
                in_place = jax.lax.dynamic_update_slice(in_place, derivative[None], at)
        saved = {
            None: (),
            "remat": state,
            "stored": (state.h, derivatives.h_by_c, derivatives.c_by_c),
        }[gradient]
        state, output = after_step(state, new, valid)
        return (state, in_place), (output, saved)

    inputs = (_step_indices(x), steps.reset, steps.valid)
    in_place = product(x, params.kernel_ih, dtype) if hoist else x  # [time, batch, …]
    start = (state, in_place)
    (state, in_place), (outputs, saved) = jax.lax.scan(body, start, inputs, reverse=reverse)
    if gradient == "stored":
        return outputs, state, Saved(*saved, by_z=in_place)
    return outputs, state, saved or None


def _fused_sequence_backward(
    reverse: bool,
    gradient: Gradient,
    residuals: Residuals,
    cotangents: tuple[Float[Array, "time batch hidden"], LSTMState],
) -> tuple[LSTMParams, Float[Array, "time batch features"], LSTMState, None, None]:
    """Return the gradients of params, x and the first state; steps and clip have none.

    The loop works in place on `Saved.by_z`. Its entries of steps to come are the local derivatives;
    those of steps already run are dz_t.
    """
    del gradient  # "remat" shows in the type of `saved`
    params, x, saved, steps, clip = residuals
    d_outputs, d_last = cotangents  # [time, batch, hidden], and h, c [batch, hidden]
    if isinstance(saved, LSTMState):
        saved = recompute_saved(params, x, saved)
    if steps.valid is not None:
        # The output of a row that is not valid is the constant 0.
        d_outputs = jnp.where(steps.valid[:, :, None], d_outputs, 0)
    kernel_hh_t = params.kernel_hh.T  # [4·hidden, hidden]

    def body(carry, inputs):
        (d_state, in_place), (t, d_output, h_by_c, c_by_c, now) = carry, inputs
        by_z = jax.lax.dynamic_index_in_dim(in_place, t, keepdims=False)  # [batch, 4·hidden]
        c_by_i, c_by_f, c_by_g, h_by_o = jnp.split(by_z, 4, axis=-1)  # [batch, hidden] each
        d_state, d_frozen = _split_by_valid(d_state, now.valid)  # h, c [batch, hidden] each
        # A clip replaces the whole derivative, before anything is computed from it.
        d_h = _clip_cotangent(clip, "h", d_state.h + d_output)  # [batch, hidden]
        d_c = _clip_cotangent(clip, "c", d_state.c + d_h * h_by_c)  # [batch, hidden]
        dz = [d_c * c_by_i, d_c * c_by_f, d_c * c_by_g, d_h * h_by_o]  # [batch, hidden] each
        dz = _clip_cotangent(clip, "gates", jnp.concatenate(dz, axis=-1))  # [batch, 4·hidden]
        in_place = jax.lax.dynamic_update_slice(in_place, dz[None], (t, 0, 0))
        # From here on, cotangents of the state before the step.
        d_h = product(dz, kernel_hh_t, dz.dtype)  # [batch, hidden]
        if now.detach is not None:
            d_h = jnp.where(now.detach[:, None], 0, d_h)
        # A reset zeroes the state in the forward pass, so it zeroes the cotangent here.
        d_before = before_step(LSTMState(d_h, d_c * c_by_c), now.reset)
        if d_frozen is not None:
            d_before = jax.tree.map(jnp.add, d_before, d_frozen)
        return (d_before, in_place), None

    inputs = (_step_indices(x), d_outputs, saved.h_by_c, saved.c_by_c, steps)
    (d_first, dz), _ = jax.lax.scan(body, (d_last, saved.by_z), inputs, reverse=not reverse)
    d_params, dx = _hoisted_gradients(params, x, saved.h_before, dz)
    return d_params, dx, d_first, None, None


_fused_sequence.defvjp(_fused_sequence_forward, _fused_sequence_backward)


def _hoisted_gradients(
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


def _step_indices(x: Float[Array, "time batch features"]) -> Int[Array, " time"]:
    return jnp.arange(x.shape[0])
