"""What the learned rule sees of each tensor: statistics without the gradient's scale."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.transforms.derivatives import safe_divide, safe_sqrt

TAUS = (10, 30, 100, 300, 1000)
"""Steps at which t/(t + τ) is one half."""

FEATURES = (
    "log gradient over second moment",
    "log first over second moment",
    "log mean square of the direction",
    "cosine of gradient and first moment",
    "mean absolute direction",
    "log share of the second moment",
    "has parameters",
    "log relative step",
    "log size",
    "log fan in",
    "rank",
    *(f"time over {tau}" for tau in TAUS),
    "has horizon",
    "share of the horizon",
    "fourth power of that share",
    "has loss",
    "trend of the loss",
    "distance from the best loss",
    "log progress of the loss",
)
"""The features in their order; stored weights fit only these, see `weights`."""


class Moments(NamedTuple):
    """A tensor's gradient and its bias-corrected averages, all in the shape of the tensor."""

    gradient: jax.Array
    before: jax.Array  # first moment before this step
    first: jax.Array
    second: jax.Array
    direction: jax.Array  # Nadam's


def tensor_features(
    moments: list[Moments],
    params: list[Any] | None,
    shared: Float[Array, " shared"],
    rate: jax.Array,
) -> Float[Array, "tensors features"]:
    """Return the features of each tensor; none changes if all gradients are multiplied by a number.

    Args:
      moments: of each tensor.
      params: the tensors, or None.
      shared: the features of time, horizon and loss, see `time_features` and `loss_watch`.
      rate: the base learning rate, to which the size of the tensor is compared.
    """
    second = jnp.stack([_mean(m.second) for m in moments])
    whole = jnp.mean(second)
    rows = [
        jnp.concatenate([_own_features(m, p, whole, rate), shared])
        for m, p in zip(moments, params or [None] * len(moments), strict=True)
    ]
    features = jnp.nan_to_num(jnp.stack(rows), nan=0, posinf=3, neginf=-3)
    return jax.lax.stop_gradient(features)


def time_features(count: jax.Array, horizon: Any) -> Float[Array, " 8"]:
    """Return the features of the step count, and of the horizon; a horizon of 0 is unknown."""
    t = count.astype(jnp.float32)
    steps = jnp.asarray(horizon, jnp.float32)
    known = (steps > 0).astype(jnp.float32)
    share = known * jnp.clip(t / jnp.maximum(steps, 1), 0, 1)
    return jnp.stack([*(t / (t + tau) for tau in TAUS), known, share, share**4])


def _own_features(moments: Moments, param: Any, whole: jax.Array, rate: jax.Array) -> jax.Array:
    g, before, first, second, d = (x.astype(jnp.float32) for x in moments)
    dot, norms = _mean(g * before), _mean(g * g) * _mean(before * before)
    cosine = safe_divide(dot, safe_sqrt(norms))
    shape = d.shape
    size, fan_in = max(d.size, 1), max(shape[0], 1) if shape else 1
    if param is None:
        known, relative = 0.0, jnp.float32(0)
    else:
        square = _mean(jnp.square(jnp.asarray(param, jnp.float32)))
        known, relative = 1.0, _log_ratio(rate * rate * _mean(d * d), square)
    return jnp.stack(
        [
            _log_ratio(_mean(g * g), _mean(second)),
            _log_ratio(_mean(first * first), _mean(second)),
            _log_ratio(_mean(d * d), jnp.float32(1)),
            cosine,
            jnp.clip(_mean(jnp.abs(d)), 0, 3),
            _log_ratio(_mean(second), whole),
            jnp.float32(known),
            relative,
            0.1 * jnp.log(jnp.float32(size)),
            0.1 * jnp.log(jnp.float32(fan_in)),
            jnp.float32(0.5 * len(shape)),
        ]
    )


def _mean(x: jax.Array) -> jax.Array:
    """Return the mean, or 0 if there are no entries."""
    return jnp.sum(x) / max(x.size, 1)


def _log_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return a fifth of log(x/y), within ±3; 0 if both are 0."""
    smallest = jnp.float32(1e-37)
    return jnp.clip(0.2 * (jnp.log(x + smallest) - jnp.log(y + smallest)), -3, 3)
