"""The fast backend: what need not wait for the recurrence stands outside the loop, both ways."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.lstm.backends.hoisted import hoisted_sequence, project
from lstm_optax.lstm.cell import LSTMParams, LSTMState, product
from lstm_optax.lstm.steps import Clip, Gradient, Steps, after_step, before_step

_CACHED = 2**23
"""Entries up to which a buffer pays on a CPU: `tests/lstm/measure_forward.py` shows it."""


class Factors(NamedTuple):
    """What the backward loop multiplies by; all of it is known when the forward loop ends."""

    z: tuple[Float[Array, "*steps batch hidden"], ...]  # ∂c′/∂z of i, f, g; ∂h′/∂z of o
    h: Float[Array, "*steps batch hidden"]  # ∂h′/∂c′
    c: Float[Array, "*steps batch hidden"]  # ∂c′/∂c, the forget gate


def fused_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one recurrent product and one tanh for all gates at each step, and so backwards.

        tanh of (½z_i, ½z_f, z_g, ½z_o) gives all gates, since σ(z) = ½ tanh(½z) + ½

    The product of all inputs with kernel_ih is one, before the loop. On the way back the loop has
    one product with kernel_hhᵀ; the gradients by kernels, bias and inputs are one product each
    after it. "stored" keeps what the backward loop multiplies by, 7 numbers for each hidden unit
    and step; "remat" keeps h and c, and computes the others anew from them, all steps at once.

    "autodiff" leaves the gradient to JAX, for forward mode and for the record of a `probe`.
    """
    if gradient == "autodiff" or steps.probe is not None or x.shape[0] == 0:
        return hoisted_sequence(params, x, state, steps, reverse, clip)
    return _sequence(reverse, gradient, params, x, state, steps, clip)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sequence(reverse, gradient, params, x, state, steps, clip):
    del gradient, clip

    def run(hoist):
        return lambda *inputs: _forward(reverse, None, *inputs, hoist=hoist)[:2]

    def run_on_cpu(*inputs):
        # no gradient, nothing to keep: a CPU is faster without a buffer that its cache cannot hold
        fits = _is_cached(x.shape[0], x.shape[1], params.kernel_ih.shape[1])
        if isinstance(fits, bool):
            return run(hoist=fits)(*inputs)
        return jax.lax.cond(fits, run(hoist=True), run(hoist=False), *inputs)

    inputs = (params, x, state, steps)
    return jax.lax.platform_dependent(*inputs, cpu=run_on_cpu, default=run(hoist=True))


def _is_cached(*sizes: int) -> bool | jax.Array:
    """Whether so many entries pay; a traced bool where `jax.export` leaves a size symbolic."""
    if all(isinstance(size, int) for size in sizes):
        return math.prod(sizes) <= _CACHED
    factors = [jnp.asarray(size, jnp.float32) for size in sizes]  # no overflow, exact up to 2²⁴
    return math.prod(factors) <= _CACHED


def _sequence_forward(reverse, gradient, params, x, state, steps, clip):
    outputs, last, saved = _forward(reverse, gradient, params, x, state, steps)
    return (outputs, last), (params, x, saved, steps, clip)


def _forward(
    reverse: bool, keep: Gradient | None, params, x, state, steps: Steps, *, hoist: bool = True
):
    """The loop; with "stored", Factors.z take the place of the pre-activations in their buffer."""
    params, hidden, dtype = _halved(params), state.h.shape[-1], state.c.dtype
    bias = params.bias.astype(dtype)[None]  # added in the loop: before it, a pass over all steps

    def body(carry, inputs):
        (state, buffer), (t, fresh, alive) = carry, inputs
        state = before_step(state, fresh)
        z = jax.lax.dynamic_index_in_dim(buffer, t, keepdims=False)
        z = z if hoist else product(z, params.kernel_ih, dtype)
        z = z + product(state.h, params.kernel_hh, dtype) + bias
        new, factors = _gates(z, state.c)
        if keep == "stored":
            for k, factor in enumerate(factors.z):
                at = (t, 0, k * hidden)
                buffer = jax.lax.dynamic_update_slice(buffer, factor[None], at)
        saved = {None: (), "remat": state, "stored": (state.h, factors.h, factors.c)}[keep]
        state, output = after_step(state, new, alive)
        return (state, buffer), (output, saved)

    inputs = (_times(x), steps.fresh, steps.alive)
    start = (state, product(x, params.kernel_ih, dtype) if hoist else x)
    (state, buffer), (outputs, saved) = jax.lax.scan(body, start, inputs, reverse=reverse)
    return outputs, state, (saved, buffer if keep == "stored" else None)


def _sequence_backward(reverse, gradient, residuals, cotangents):
    params, x, (saved, factors), steps, clip = residuals
    pulls, later = cotangents
    if gradient == "remat":
        saved, factors = _rematerialised(params, x, saved)
    if steps.alive is not None:
        pulls = jnp.where(steps.alive[:, :, None], pulls, 0)
    transposed = params.kernel_hh.T

    def body(carry, inputs):
        (later, buffer), (t, pull, by_c, forget, now) = carry, inputs
        by_z = jnp.split(jax.lax.dynamic_index_in_dim(buffer, t, keepdims=False), 4, axis=-1)
        later, frozen = _parted(later, now.alive)
        dh = _bounded(clip, "h", later.h + pull)
        dc = _bounded(clip, "c", later.c + dh * by_c)
        dz = [d * by for d, by in zip((dc, dc, dc, dh), by_z, strict=True)]
        dz = _bounded(clip, "gates", jnp.concatenate(dz, axis=-1))
        buffer = jax.lax.dynamic_update_slice(buffer, dz[None], (t, 0, 0))
        dh = product(dz, transposed, dz.dtype)
        if now.detach is not None:
            dh = jnp.where(now.detach[:, None], 0, dh)
        earlier = before_step(LSTMState(dh, dc * forget), now.fresh)  # zeroed on the way back, too
        return (earlier if frozen is None else jax.tree.map(jnp.add, earlier, frozen), buffer), None

    inputs = (_times(x), pulls, *saved[1:], steps)
    (first, dz), _ = jax.lax.scan(body, (later, factors), inputs, reverse=not reverse)
    return (*_products(params, x, saved[0], dz), first, None, None)


_sequence.defvjp(_sequence_forward, _sequence_backward)


def _halved(params: LSTMParams) -> LSTMParams:
    """The parameters for the gates' tanh: half of those of i, f and o, which is exact."""
    hidden = params.kernel_hh.shape[0]
    halves = jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5]), hidden)
    return jax.tree.map(
        lambda p: p * halves.astype(p.dtype).reshape((1,) * (p.ndim - 1) + (-1,)), params
    )


def _gates(z, c) -> tuple[LSTMState, Factors]:
    """The new state from the halved pre-activations, and its derivatives."""
    i, f, g, o = jnp.split(jnp.tanh(z), 4, axis=-1)
    i, f, o = (0.5 * gate + 0.5 for gate in (i, f, o))
    new = f * c + i * g
    squashed = jnp.tanh(new)
    by_z = (g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o))
    return LSTMState(o * squashed, new), Factors(by_z, o * (1 - squashed * squashed), f)


def _rematerialised(params: LSTMParams, x, read: LSTMState):
    """What "stored" would have kept, from the states that the steps read: one product for all."""
    params, dtype = _halved(params), read.c.dtype
    z = project(params, x, dtype) + product(read.h, params.kernel_hh, dtype)
    _, factors = _gates(z, read.c)
    return (read.h, factors.h, factors.c), jnp.concatenate(factors.z, axis=-1)


def _products(params: LSTMParams, x, h, dz) -> tuple[LSTMParams, Array]:
    """The gradients by parameters and inputs, each one product over all steps and rows."""
    bias = jnp.sum(dz, (0, 1)).astype(params.bias.dtype)
    rows = dz.astype(params.kernel_ih.dtype)

    def by_kernel(inputs, kernel):
        inputs = inputs.astype(kernel.dtype)
        over = (((0, 1), (0, 1)), ((), ()))
        product = jax.lax.dot_general(inputs, rows, over, preferred_element_type=dz.dtype)
        return product.astype(kernel.dtype)

    kernels = by_kernel(x, params.kernel_ih), by_kernel(h, params.kernel_hh)
    return LSTMParams(*kernels, bias), product(dz, params.kernel_ih.T, dz.dtype).astype(x.dtype)


def _parted(state: LSTMState, alive) -> tuple[LSTMState, LSTMState | None]:
    """A gradient in two: that of the rows that live at this step, and that of the frozen ones."""
    if alive is None:
        return state, None
    keep = alive[:, None]
    return (
        jax.tree.map(lambda s: jnp.where(keep, s, 0), state),
        jax.tree.map(lambda s: jnp.where(keep, 0, s), state),
    )


def _bounded(clip: Clip, name: str, gradient):
    """The gradient, with the bound that `clip` puts on it."""
    if clip is None:
        return gradient
    return jax.vjp(partial(clip.mark, name), gradient)[1](gradient)[0]


def _times(x) -> jax.Array:
    return jnp.arange(x.shape[0])
