"""The cuDNN backend: NVIDIA's own LSTM through `jax.experimental.rnn`, one call for a sequence."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.steps import Clip, Gradient, Steps

TF32 = ("high", "tensorfloat32", "TF32_TF32_F32")  # as `jax.default_matmul_precision` names it


def cudnn_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    state: LSTMState,
    steps: Steps,
    reverse: bool,
    clip: Clip = None,
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one layer in one direction in one call of cuDNN; cuDNN's, too, is the gradient.

    Products are float32; TensorFloat-32 where `jax.default_matmul_precision` asks for just that.

    cuDNN fails for a row of length 0, so such a row runs one step, whose results are thrown away.
    What it leaves in the padding, of outputs and gradients, is thrown away too.

    Raises:
      ValueError: no NVIDIA GPU, or something asked for that cuDNN does not do.
    """
    _check_served(params, x, steps, clip, gradient)
    time, batch, _ = x.shape
    valid = steps.valid
    ragged = valid is not None
    lengths = jnp.sum(valid, 0, dtype=jnp.int32) if ragged else jnp.full(batch, time, jnp.int32)

    def turned(x):
        return x if not reverse else _flipped(x, lengths) if ragged else x[::-1]

    outputs, last = _call(params, turned(x), state, jnp.maximum(lengths, 1))
    outputs = turned(outputs)
    if ragged:
        outputs = jnp.where(valid[:, :, None], outputs, 0)
        some = (lengths > 0)[:, None]
        last = jax.tree.map(lambda new, old: jnp.where(some, new, old), last, state)
    return outputs, last


def missing() -> str | None:
    """Return why cuDNN's LSTM cannot be called in this process, None if it can."""
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


def _check_served(params: LSTMParams, x, steps: Steps, clip: Clip, gradient: str) -> None:
    dtype = params.kernel_ih.dtype
    reasons = {
        "it cannot zero a carry within a sequence, so it takes no resets": steps.reset is not None,
        "it shows no step of its backward pass, so it takes no cotangent_clip": clip is not None,
        "it shows no step of its backward pass, so it takes no detach": steps.detach is not None,
        "it shows no step of its backward pass, so it takes no probe": steps.probe is not None,
        f"it has its own gradient, so it takes no gradient={gradient!r}": gradient != "stored",
        f"it is float32 alone here, and dtype is {dtype}": dtype != jnp.float32,
        f"it fails for an empty sequence or batch, and x has shape {x.shape}": 0 in x.shape[:2],
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if reason := missing():
        found.append(reason)
    if found:
        raise ValueError(
            f"backend='cudnn' cannot serve this call: {'; '.join(found)}. Use backend='fused', "
            f"or 'auto', which serve it on any device"
        )


def _call(
    params: LSTMParams, x, state: LSTMState, lengths: Int[Array, " batch"]
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    from jax.experimental import rnn

    hidden, dtype = state.h.shape[-1], params.kernel_ih.dtype
    lstm: Any = rnn.lstm
    try:
        outputs, h, c = lstm(
            jnp.swapaxes(x.astype(dtype), 0, 1),
            state.h[None],
            state.c[None],
            _packed(params),
            lengths,
            x.shape[-1],
            hidden,
            1,  # layer
            0.0,  # dropout
            False,  # bidirectional
            _precision(),
        )
    except NotImplementedError as error:
        raise ValueError(
            f"backend='cudnn' cannot serve this call: {error}. cuDNN's LSTM has no rule for vmap: "
            f"put the mapped axis into the batch, or use backend='fused'"
        ) from error
    return jnp.swapaxes(outputs, 0, 1), LSTMState(h[0], c[0])


def _packed(params: LSTMParams) -> Float[Array, " weights"]:
    """The weights in cuDNN's order: transposed kernels, gates i, f, g, o, and then two biases.

    cuDNN adds its two biases. The second is the constant 0, so the gradient by the first, the
    sum of that by the gates, is the gradient by ours.
    """
    bias = params.bias.astype(params.kernel_ih.dtype)
    parts = (params.kernel_ih.T, params.kernel_hh.T, bias, jnp.zeros_like(bias))
    return jnp.concatenate([part.ravel() for part in parts])


def _flipped(
    x: Float[Array, "time batch features"], lengths: Int[Array, " batch"]
) -> Float[Array, "time batch features"]:
    """The steps of each row that count in reverse order; the padding stays at the end."""
    t, lengths = jnp.arange(x.shape[0])[:, None], lengths[None, :]
    source = jnp.where(t < lengths, lengths - 1 - t, t)
    rows = jnp.arange(x.shape[1])[None, :]
    return x.at[source, rows].get(unique_indices=True, mode="promise_in_bounds")


def _precision() -> jax.lax.Precision:
    """Exact unless TensorFloat-32 is asked for: JAX's own default here would be TensorFloat-32."""
    asked = getattr(jax.config, "jax_default_matmul_precision", None)
    return jax.lax.Precision.HIGH if asked in TF32 else jax.lax.Precision.HIGHEST
