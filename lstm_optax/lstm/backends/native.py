"""Native backend: the recurrence and all products in C++, on the CPU.

The same formulas as `fused.py` and `fused_backward.py`. The forward pass saves the activations of
the gates and c_{t−1}, 5 numbers for each hidden unit, row and step; the backward pass writes dz
over the activations.
"""

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lstm_optax.lstm.backends.fused import fused_sequence
from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.cotangents import CotangentClip, bounds_of
from lstm_optax.lstm.lookup import Lookup
from lstm_optax.lstm.native import calls, library
from lstm_optax.lstm.steps import Clip, Gradient, Steps

Results: TypeAlias = tuple[Float[Array, "time batch hidden"], LSTMState]


MOST_ENTRIES = 1024  # of a table, so that a part of its gradient stays in the cache

_differentiable: Any = partial(jax.custom_vjp, nondiff_argnums=(0,))  # not for `options`


class Options(NamedTuple):
    """What is compiled into a program."""

    reverse: bool
    remat: bool
    bfloat16: bool  # the factors of products are rounded, where the CPU can


class Inputs(NamedTuple):
    """The arguments of a sequence.

    With ids, the inputs are 1 at one feature and 0 at the others.
    """

    params: LSTMParams
    x: Float[Array, "time batch features"] | Int[Array, "time batch"]
    state: LSTMState
    steps: Steps
    clip: Clip


class Saved(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    outputs: Float[Array, "time batch hidden"]
    gates: Float[Array, "time batch 4 units"]  # i, f, g and o, `units` hidden padded
    c_before: Float[Array, "time batch units"]  # c_{t−1}, 0 after a reset


def native_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"] | Lookup,
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one layer in C++, the rows of the batch on all cores, each row through all steps.

    "stored" keeps 5 numbers for each hidden unit, row and step; "remat" keeps none and runs the
    forward pass once more. Derivatives of the gradient are those of the fused backend.

    Raises:
      ValueError: the library is missing, or an option that it does not support.
    """
    if found := reasons_against(params, x, steps, gradient):
        raise ValueError(
            f"backend='native' cannot run this call: {'; '.join(found)}. Use backend='auto' or "
            f"'fused', which run on any device"
        )
    options = Options(reverse, gradient == "remat", params.kernel_ih.dtype == jnp.bfloat16)
    # Weights of fewer bits are exact in float32; their gradients are rounded to their dtype.
    params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    if isinstance(x, Lookup):  # an id selects a row of table·W_ih
        table = x.table.astype(jnp.float32)
        params, x = params._replace(kernel_ih=table @ params.kernel_ih), x.entries()
    else:
        x = x.astype(jnp.float32)
    inputs = Inputs(params, x, state, steps, clip)
    return _sequence(options, inputs)


def gains_from(x: Lookup) -> bool:
    """Return whether ids are faster than the rows of the table that they select."""
    (time, batch, _), entries = x.shape, x.table.shape[0]
    return 0 < entries <= min(time * batch // 2, MOST_ENTRIES)


def reasons_against(
    params: LSTMParams,
    x: Float[Array, "time batch features"] | Lookup,
    steps: Steps,
    gradient: Gradient,
) -> list[str]:
    """Return the reasons why this backend cannot run a call; none if it can."""
    dtype = params.kernel_ih.dtype
    sizes = (*x.shape, params.kernel_hh.shape[0])
    checks = {
        f"it computes in float32, and dtype is {dtype}": jnp.promote_types(dtype, jnp.float32)
        != jnp.float32,
        "it has its own gradient, so it takes no gradient='autodiff'": gradient == "autodiff",
        "it shows no step of its backward pass, so it takes no probe": steps.probe is not None,
        f"it needs known sizes of at least 1, and x has shape {x.shape}": not all(
            isinstance(size, int) and size > 0 for size in sizes
        ),
    }
    found = [reason for reason, holds in checks.items() if holds]
    if reason := missing():
        found.append(reason)
    return found


def missing() -> str | None:
    """Return the reason why this process cannot run the native backend, or None if it can."""
    if jax.default_backend() != "cpu":
        return f"JAX computes on {jax.default_backend()} here, and it runs on CPUs alone"
    return library.missing()


@_differentiable
def _sequence(options: Options, inputs: Inputs) -> Results:
    """Return the results, and save nothing."""
    return _run(options, False, inputs)[0]


def _sequence_forward(options: Options, inputs: Inputs) -> tuple[Results, Any]:
    # A second derivative differentiates these two, so they call what has a derivative.
    if options.remat:
        return _sequence(options, inputs), (inputs, None)
    results, saved = _saving_sequence(options, inputs)
    return results, (inputs, saved)


def _sequence_backward(options: Options, residuals: Any, cotangents: Any) -> tuple:
    inputs, saved = residuals
    if options.remat:
        saved = _saving_sequence(options, inputs)[1]
    return (_as_cotangents(inputs, *_gradients(options, inputs, saved, cotangents)),)


_sequence.defvjp(_sequence_forward, _sequence_backward)


@_differentiable
def _saving_sequence(options: Options, inputs: Inputs) -> tuple[Results, Saved]:
    """Return the results, and what the backward pass reads, which has no derivative."""
    return _run(options, True, inputs)


def _saving_sequence_forward(options: Options, inputs: Inputs) -> tuple[tuple[Results, Saved], Any]:
    results, saved = _saving_sequence(options, inputs)
    return (results, saved), (inputs, saved)


def _saving_sequence_backward(options: Options, residuals: Any, cotangents: Any) -> tuple:
    inputs, saved = residuals
    return (_as_cotangents(inputs, *_gradients(options, inputs, saved, cotangents[0])),)


_saving_sequence.defvjp(_saving_sequence_forward, _saving_sequence_backward)


def _run(options: Options, save: bool, inputs: Inputs) -> tuple[Results, Saved]:
    params, x, state = inputs.params, inputs.x, inputs.state
    run = calls.forward(options.reverse, save, _are_ids(x), options.bfloat16)
    outputs, h, c, gates, c_before = run(x, *params, state.h, state.c, _flags(x, inputs.steps))
    return (outputs, LSTMState(h, c)), Saved(outputs, gates, c_before)


@_differentiable
def _gradients(
    options: Options, inputs: Inputs, saved: Saved, cotangents: tuple[Array, LSTMState]
) -> tuple[LSTMParams, Array | None, LSTMState]:
    """Return the gradients of params, x, None for ids, and the first state."""
    params, x, state, steps, clip = inputs
    reverse, _, bfloat16 = options
    d_outputs, d_last = cotangents
    flags = _flags(x, steps)
    kind, bounds = _clip(clip)
    dz, d_h, d_c = calls.backward(reverse, kind, bfloat16)(
        saved.gates, saved.c_before, params.kernel_hh, d_outputs, d_last.h, d_last.c, flags, bounds
    )
    weights = calls.weight_gradient(reverse, params.kernel_ih.shape[0], _are_ids(x), bfloat16)
    d_ih, d_hh, d_bias = weights(x, state.h, saved.outputs, flags, dz)
    d_x = None if _are_ids(x) else calls.input_gradient(bfloat16)(dz, params.kernel_ih)
    return LSTMParams(d_ih, d_hh, d_bias), d_x, LSTMState(d_h, d_c)


def _gradients_forward(options: Options, inputs: Inputs, saved: Saved, cotangents: Any) -> tuple:
    return _gradients(options, inputs, saved, cotangents), (inputs, cotangents)


def _gradients_backward(options: Options, residuals: Any, d_gradients: Any) -> tuple:
    """Differentiate the gradient of the fused backend, which is made of JAX's operations."""
    inputs, cotangents = residuals
    params, x, state, steps, clip = inputs
    ids = _are_ids(x)
    dense = jax.nn.one_hot(x, params.kernel_ih.shape[0]) if ids else x

    def gradients(params, x, state, cotangents):
        run = partial(fused_sequence, steps=steps, reverse=options.reverse, clip=clip)
        d_params, d_x, d_state = jax.vjp(run, params, x, state)[1](cotangents)
        return d_params, None if ids else d_x, d_state

    d_params, d_x, d_state, d_cotangents = jax.vjp(gradients, params, dense, state, cotangents)[1](
        d_gradients
    )
    d_x = None if ids else d_x
    return _as_cotangents(inputs, d_params, d_x, d_state), None, d_cotangents


_gradients.defvjp(_gradients_forward, _gradients_backward)


def _are_ids(x: Array) -> bool:
    return x.ndim == 2


def _as_cotangents(inputs: Inputs, d_params: LSTMParams, d_x: Any, d_state: LSTMState) -> Any:
    """Return the cotangent of all inputs; ids, masks and the bounds have none."""
    steps, clip = jax.tree.map(lambda _: None, (inputs.steps, inputs.clip))
    return Inputs(d_params, d_x, d_state, steps, clip)


def _flags(x: Array, steps: Steps) -> Array:
    """Return the masks as bits: 1 reset, 2 not valid, 4 detached; [0, batch] if there are none."""
    masks = (steps.reset, None if steps.valid is None else ~steps.valid, steps.detach)
    flags = [mask.astype(jnp.uint8) << k for k, mask in enumerate(masks) if mask is not None]
    return sum(flags[1:], flags[0]) if flags else jnp.zeros((0, x.shape[1]), jnp.uint8)


def _clip(clip: Clip) -> tuple[int, Float[Array, " 6"]]:
    """Return the kind of clip, and the low and high bound of h, c and gates, infinite for none."""
    if clip is None:
        return 0, jnp.zeros(6)
    pairs = [bounds_of(clip, name) for name in ("h", "c", "gates")]
    bounds = jnp.stack([jnp.asarray(bound, jnp.float32) for pair in pairs for bound in pair])
    return (1 if isinstance(clip, CotangentClip) else 2), bounds
