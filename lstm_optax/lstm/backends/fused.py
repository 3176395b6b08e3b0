"""Fast backend: work outside the recurrence is hoisted out of the time loop, in both passes.

Forward, for t = 0 … T − 1, gates in the order i, f, g, o:

    z_t = x_t·W_ih + h_{t−1}·W_hh + b           x·W_ih is one product before the loop
    i, f, o = σ(z_i), σ(z_f), σ(z_o);  g = tanh(z_g)
    c_t = f ⊙ c_{t−1} + i ⊙ g;  h_t = o ⊙ tanh(c_t)

The backward recursion is in `fused_backward.py`. For it the forward pass stores h_{t−1}, f, ∂h/∂c
and the four ∂/∂z ("stored"), or h_{t−1} and c_{t−1}, from which the backward pass recomputes the
others for all steps at once ("remat").

Masks, for each row of a step: with a reset the step reads h = c = 0; a row that is not valid keeps
its state.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.lstm.backends.derivatives import (
    Saved,
    apply_halved_gates,
    halve_sigmoid_gates,
    recompute_saved,
)
from lstm_optax.lstm.backends.fused_backward import backward_loop, hoisted_gradients
from lstm_optax.lstm.backends.hoisted import hoisted_sequence
from lstm_optax.lstm.cell import LSTMParams, LSTMState, product
from lstm_optax.lstm.steps import Clip, Gradient, Steps, after_step, before_step

_CACHE_ENTRIES = 2**23
"""Largest x·W_ih, in entries, to hoist on a CPU; measured by `tests/lstm/measure_forward.py`."""

UNROLL = 4
"""Steps in one iteration of a loop, except on a CPU; `tests/lstm/measure_gradients.py`."""


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

    def run(hoist, unroll=1):
        return lambda *inputs: _forward_loop(
            reverse, None, *inputs, hoist=hoist, in_place=False, unroll=unroll
        )[:2]

    def run_on_cpu(*inputs):
        # Nothing has to be saved, so on a CPU a buffer larger than the cache only costs time.
        fits = _fits_cache(x.shape[0], x.shape[1], params.kernel_ih.shape[1])
        if isinstance(fits, bool):
            return run(hoist=fits)(*inputs)
        return jax.lax.cond(fits, run(hoist=True), run(hoist=False), *inputs)

    inputs = (params, x, state, steps)
    return jax.lax.platform_dependent(*inputs, cpu=run_on_cpu, default=run(True, _unroll(x)))


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
    run = partial(_forward_loop, reverse, gradient)
    outputs, last, saved = _by_platform(run, _unroll(x), params, x, state, steps)
    assert saved is not None
    return (outputs, last), Residuals(params, x, saved, steps, clip)


def _by_platform(loop: Callable[..., Any], unroll: int, *inputs: Any) -> Any:
    """Run a loop in place on a CPU, where each array that it writes costs a pass over memory.

    On a GPU, XLA copies the whole array at every step of a loop that both reads and writes it, and
    each iteration has a cost of its own, which several steps share.
    """
    in_place = partial(loop, in_place=True, unroll=1)
    stacked = partial(loop, in_place=False, unroll=unroll)
    return jax.lax.platform_dependent(*inputs, cpu=in_place, default=stacked)


def _unroll(x: Float[Array, "time batch features"]) -> int:
    """Return the steps of an iteration: JAX can unroll only a loop whose length is known."""
    return UNROLL if isinstance(x.shape[0], int) else 1


def _forward_loop(
    reverse: bool,
    gradient: Gradient | None,
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    *,
    hoist: bool = True,
    in_place: bool,
    unroll: int,
) -> tuple[Float[Array, "time batch hidden"], LSTMState, Saved | LSTMState | None]:
    """Return outputs, last state, and the arrays that `gradient` saves (None: nothing).

    The loop reads x_t·W_ih, or x_t with hoist=False. With "stored" it writes
    `LocalDerivatives.by_z`: in place over the x_t·W_ih of steps already run, or into a new array.
    """
    params = halve_sigmoid_gates(params)
    hidden, dtype = state.h.shape[-1], state.c.dtype
    # Adding the bias before the loop would be one more pass over all steps.
    bias = params.bias.astype(dtype)[None]  # [1, 4·hidden]

    def body(carry, inputs):
        (state, shared), (t, z, reset, valid) = carry, inputs
        state = before_step(state, reset)  # h, c [batch, hidden]
        if in_place:
            z = jax.lax.dynamic_index_in_dim(shared, t, keepdims=False)
        z = z if hoist else product(z, params.kernel_ih, dtype)  # [batch, 4·hidden]
        z = z + product(state.h, params.kernel_hh, dtype) + bias  # [batch, 4·hidden]
        new, derivatives = apply_halved_gates(z, state.c)
        by_z: Any = None  # in place: the whole array is the loop's state
        if gradient == "stored" and in_place:
            # Four updates in place; a concatenation first would be a copy.
            for k, derivative in enumerate(derivatives.by_z):  # [batch, hidden]
                at = (t, 0, k * hidden)
                shared = jax.lax.dynamic_update_slice(shared, derivative[None], at)
        elif gradient == "stored":
            by_z = jnp.concatenate(derivatives.by_z, axis=-1)  # [batch, 4·hidden]
        saved = {
            None: None,
            "remat": state,
            "stored": Saved(state.h, derivatives.h_by_c, derivatives.c_by_c, by_z),
        }[gradient]
        state, output = after_step(state, new, valid)
        return (state, shared), (output, saved)

    z = product(x, params.kernel_ih, dtype) if hoist else x  # [time, batch, …]
    inputs = (jnp.arange(x.shape[0]), None if in_place else z, steps.reset, steps.valid)
    start = (state, z if in_place else None)
    (state, shared), (outputs, saved) = jax.lax.scan(
        body, start, inputs, reverse=reverse, unroll=unroll
    )
    if in_place and isinstance(saved, Saved):
        saved = saved._replace(by_z=shared)
    return outputs, state, saved


def _fused_sequence_backward(
    reverse: bool,
    gradient: Gradient,
    residuals: Residuals,
    cotangents: tuple[Float[Array, "time batch hidden"], LSTMState],
) -> tuple[LSTMParams, Float[Array, "time batch features"], LSTMState, None, None]:
    """Return the gradients of params, x and the first state; steps and clip have none."""
    del gradient  # "remat" shows in the type of `saved`
    params, x, saved, steps, clip = residuals
    d_outputs, d_last = cotangents  # [time, batch, hidden], and h, c [batch, hidden]
    if isinstance(saved, LSTMState):
        saved = recompute_saved(params, x, saved)
    if steps.valid is not None:
        # The output of a row that is not valid is the constant 0.
        d_outputs = jnp.where(steps.valid[:, :, None], d_outputs, 0)
    loop = partial(backward_loop, reverse, clip, params.kernel_hh.T)
    dz, d_first = _by_platform(loop, _unroll(x), saved, d_outputs, d_last, steps)
    d_params, dx = hoisted_gradients(params, x, saved.h_before, dz)
    return d_params, dx, d_first, None, None


_fused_sequence.defvjp(_fused_sequence_forward, _fused_sequence_backward)
