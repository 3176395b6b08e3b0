"""cuDNN backend: NVIDIA's LSTM through `jax.experimental.rnn`, one call for a sequence."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float, Int

from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.steps import Clip, Gradient, Steps

TF32 = ("high", "tensorfloat32", "TF32_TF32_F32")  # names of it in `jax.default_matmul_precision`


def cudnn_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one layer with a single cuDNN call; cuDNN computes the gradient as well.

    Products are float32, or TensorFloat-32 if `jax.default_matmul_precision` asks for it.

    cuDNN fails for a row of length 0, so such a row runs one step and its results are discarded.
    Values that cuDNN leaves in the padding of outputs and gradients are discarded as well.

    Raises:
      ValueError: no NVIDIA GPU, or an option that cuDNN does not support.
    """
    _check_supported(params, x, steps, clip, gradient)
    time, batch, _ = x.shape
    valid = steps.valid  # [time, batch]
    ragged = valid is not None
    lengths = jnp.sum(valid, 0, dtype=jnp.int32) if ragged else jnp.full(batch, time, jnp.int32)

    def in_run_order(x):  # its own inverse
        return x if not reverse else _reverse_rows(x, lengths) if ragged else x[::-1]

    outputs, last = _call_cudnn(params, in_run_order(x), state, jnp.maximum(lengths, 1))
    outputs = in_run_order(outputs)  # [time, batch, hidden]
    if ragged:
        outputs = jnp.where(valid[:, :, None], outputs, 0)
        not_empty = (lengths > 0)[:, None]  # [batch, 1]
        last = jax.tree.map(lambda new, old: jnp.where(not_empty, new, old), last, state)
    return outputs, last


def missing() -> str | None:
    """Return the reason why this process cannot call cuDNN's LSTM, or None if it can."""
    try:
        from jax.experimental import rnn
    except ImportError:
        return "this version of JAX has no jax.experimental.rnn"
    try:
        jax.devices("cuda")
    except RuntimeError:
        return "JAX sees no NVIDIA GPU here"
    if not hasattr(getattr(rnn, "gpu_rnn", None), "compute_rnn_workspace_reserve_space_sizes"):
        return "JAX's CUDA plugin came without cuDNN's LSTM"
    return None


def _check_supported(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    steps: Steps,
    clip: Clip,
    gradient: str,
) -> None:
    """Raise ValueError with all reasons why cuDNN cannot run this call."""
    dtype = params.kernel_ih.dtype
    reasons = {
        "it cannot zero a carry within a sequence, so it takes no resets": steps.reset is not None,
        "it shows no step of its backward pass, so it takes no cotangent_clip": clip is not None,
        "it shows no step of its backward pass, so it takes no detach": steps.detach is not None,
        "it shows no step of its backward pass, so it takes no probe": steps.probe is not None,
        f"it has its own gradient, so it takes no gradient={gradient!r}": gradient != "stored",
        f"it supports only float32, and dtype is {dtype}": dtype != jnp.float32,
        f"it fails for an empty sequence or batch, and x has shape {x.shape}": 0 in x.shape[:2],
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if reason := missing():
        found.append(reason)
    if found:
        raise ValueError(
            f"backend='cudnn' cannot run this call: {'; '.join(found)}. Use backend='fused', "
            f"or 'auto', which run on any device"
        )


def _call_cudnn(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    lengths: Int[Array, " batch"],
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    from jax.experimental import rnn

    hidden, dtype = state.h.shape[-1], params.kernel_ih.dtype
    lstm: Any = rnn.lstm
    try:
        outputs, h, c = lstm(
            _row_major(jnp.swapaxes(x.astype(dtype), 0, 1)),  # [batch, time, features]
            _row_major(state.h[None]),  # [1, batch, hidden]
            _row_major(state.c[None]),
            _pack_weights(params),
            lengths,
            x.shape[-1],
            hidden,
            1,  # layers
            0.0,  # dropout
            False,  # bidirectional
            _precision(),
        )
    except NotImplementedError as error:
        raise ValueError(
            f"backend='cudnn' cannot run this call: {error}. cuDNN's LSTM has no rule for vmap: "
            f"put the mapped axis into the batch, or use backend='fused'"
        ) from error
    outputs, h, c = map(_row_major, (outputs, h, c))
    return jnp.swapaxes(outputs, 0, 1), LSTMState(h[0], c[0])


def _row_major(x: Array) -> Array:
    """Return x, stored row by row, and likewise its cotangent.

    JAX states no layout for the arrays of this call, so XLA may store them in another order, and
    does so next to a transposition; cuDNN then reads them in the wrong order, without an error.
    """
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def _pack_weights(params: LSTMParams) -> Float[Array, " weights"]:
    """Return the weights in cuDNN's order: transposed kernels, gates i, f, g, o, then two biases.

    cuDNN adds its two biases. The second is the constant 0, so the gradient of the first is the
    gradient of our bias.
    """
    bias = params.bias.astype(params.kernel_ih.dtype)
    parts = (params.kernel_ih.T, params.kernel_hh.T, bias, jnp.zeros_like(bias))
    return jnp.concatenate([part.ravel() for part in parts])


def _reverse_rows(
    x: Float[Array, "time batch features"], lengths: Int[Array, " batch"]
) -> Float[Array, "time batch features"]:
    """Return x with the valid steps of each row reversed; the padding stays at the end."""
    t, lengths = jnp.arange(x.shape[0])[:, None], lengths[None, :]  # [time, 1], [1, batch]
    source = jnp.where(t < lengths, lengths - 1 - t, t)  # [time, batch]
    rows = jnp.arange(x.shape[1])[None, :]  # [1, batch]
    return x.at[source, rows].get(unique_indices=True, mode="promise_in_bounds")


def _precision() -> jax.lax.Precision:
    """Return full precision unless TensorFloat-32, JAX's default for this call, is asked for."""
    requested = getattr(jax.config, "jax_default_matmul_precision", None)
    return jax.lax.Precision.HIGH if requested in TF32 else jax.lax.Precision.HIGHEST
