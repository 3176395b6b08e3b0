"""Losses, as a sum and a count, and regularization terms on the activations."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from lstm_optax.lstm.checks import known
from lstm_optax.models.ids import check_range, signed_ids


def token_losses(
    logits: Float[Array, "*axes vocabulary"],
    targets: Int[Array, "*axes"],
    weights: Bool[Array, "*axes"] | Float[Array, "*axes"] | None = None,
) -> tuple[Float[Array, ""], Num[Array, ""]]:
    """Return the summed cross-entropy in nats and the number of tokens.

        (Σ w · (log Σⱼ exp logitsⱼ − logits_target), Σ w)

    Args:
      logits: one for each class or token, along the last axis.
      targets: ids below the vocabulary. A target below 0 is padding: its weight is 0.
      weights: w, 0 or more, or a mask of bools; all 1 if None. Logits with a weight of 0 have no
        influence, even if they are not finite.

    Raises:
      ValueError: shapes that do not fit, targets that are not integers, or a target or weight out
        of range. If a traced target is out of range, the loss and its gradient are NaN.
    """
    logits = _as_floats("logits", logits)
    vocabulary, axes = logits.shape[-1], logits.shape[:-1]
    _check_target_shape(targets, axes, f"ids for logits of shape {logits.shape}")
    checked, targets = targets, signed_ids("targets", targets)  # `targets` are traced under `jit`
    if weights is not None:
        weights = _check_weights(weights, axes)
        checked = targets = jnp.where(weights != 0, targets, -1)
        logits = jnp.where((targets >= 0)[..., None], logits, 0)
    check_range("targets", checked, vocabulary, least=None)
    valid = targets >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(valid, targets, 0))
    losses = losses * jnp.where(targets < vocabulary, 1, jnp.nan)
    weights = valid if weights is None else jnp.where(valid, weights, 0)
    return jnp.sum(jnp.where(valid, losses * weights, 0)), jnp.sum(weights)


def sequence_losses(
    outputs: Float[Array, "*axes outputs"],
    targets: Shaped[Array, "*answers"],
    weights: Shaped[Array, "*answers"] | None = None,
) -> tuple[Float[Array, ""], Num[Array, ""]]:
    """Return the summed loss of a sequence model and the number of targets.

    The dtype of the targets selects the loss: for integers, which are classes, the cross-entropy of
    `token_losses`; for floats the squared error, (Σ w · (outputs − targets)², Σ w).

    Args:
      outputs: logits or numbers along the last axis, for every step or for one.
      targets: classes, without the last axis, or numbers in the shape of the outputs.
      weights: w, 0 or more, without the last axis; for numbers also in the shape of the outputs.
        A mask of bools works too, such as `t < seq_lengths` or `~isnan(targets)`. All 1 if None.
        Outputs and targets with a weight of 0 have no influence, even if they are NaN.

    Raises:
      ValueError: targets or weights of another shape, or a class or weight out of range. If a
        traced class is out of range, the loss and its gradient are NaN.
    """
    outputs = _as_floats("outputs", outputs)
    axes = outputs.shape[:-1]
    if jnp.issubdtype(_dtype_of(targets), jnp.integer):
        _check_target_shape(targets, axes, f"classes for outputs of shape {outputs.shape}")
        return token_losses(outputs, targets, weights)
    targets = _as_floats("targets", targets)
    _check_target_shape(targets, outputs.shape, f"numbers for outputs of shape {outputs.shape}")
    if weights is None:
        return jnp.sum(jnp.square(outputs - targets)), jnp.asarray(outputs.size)
    weights = _check_weights(weights, axes, outputs.shape)
    weights = weights if weights.shape == outputs.shape else weights[..., None]
    weights = jnp.broadcast_to(weights, outputs.shape)
    valid = weights != 0
    errors = jnp.where(valid, outputs, 0) - jnp.where(valid, targets, 0)
    return jnp.sum(jnp.square(errors) * weights), jnp.sum(weights)


def activation_regularizer(
    dropped: Float[Array, "time batch hidden"], counted: Bool[Array, "time batch"] | None = None
) -> Float[Array, ""]:
    """Return activation regularization (AR), which keeps the outputs of an LSTM small.

        mean((m ⊙ h)²)

    Args:
      dropped: m ⊙ h, the outputs of the last layer after dropout.
      counted: mask of the valid steps; all if None.

    Raises:
      ValueError: `counted` is not [time, batch].

    Reference: Merity, McCann & Socher, 2017, arXiv:1708.01009. The paper has a norm; the mean of
    squares follows the authors' code.
    """
    return _mean_square(dropped, _check_counted(dropped, counted))


def temporal_activation_regularizer(
    raw: Float[Array, "time batch hidden"], counted: Bool[Array, "time batch"] | None = None
) -> Float[Array, ""]:
    """Return temporal activation regularization (TAR), which keeps the outputs from changing fast.

        mean((h_{t+1} − h_t)²), and 0 for a single step

    Args:
      raw: h, the outputs of the last layer before dropout.
      counted: mask of the valid steps; all if None. A pair is valid if both steps are.

    Raises:
      ValueError: `counted` is not [time, batch].

    Reference: Merity, McCann & Socher, 2017, arXiv:1708.01009. The paper has a norm; the mean of
    squares follows the authors' code.
    """
    counted = _check_counted(raw, counted)
    both = None if counted is None else counted[1:] & counted[:-1]
    return _mean_square(raw[1:] - raw[:-1], both)


def _check_counted(x, counted) -> Bool[Array, "time batch"] | None:
    if counted is None:
        return None
    if jnp.shape(counted) != x.shape[:2]:
        raise ValueError(
            f"counted has shape {jnp.shape(counted)}; expected {x.shape[:2]}: time by batch"
        )
    return jnp.asarray(counted, bool)


def _mean_square(x, counted) -> Float[Array, ""]:
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if counted is None:
        return jnp.sum(jnp.square(x)) / jnp.maximum(jnp.asarray(x.size, x.dtype), 1)
    total = jnp.sum(jnp.square(jnp.where(counted[:, :, None], x, 0)))
    return total / jnp.maximum(jnp.sum(counted) * x.shape[-1], 1)


def _check_weights(given, *shapes: tuple[int, ...]) -> Shaped[Array, "..."]:
    exact = any(jnp.issubdtype(_dtype_of(given), kind) for kind in (jnp.bool_, jnp.integer))
    weights = jnp.asarray(given) if exact else _as_floats("weights", given)
    if weights.shape not in shapes:
        raise ValueError(
            f"weights have shape {weights.shape}; expected {' or '.join(map(str, shapes))}"
        )
    values = known(given)
    if values is not None and not np.all((values >= 0) & (values < np.inf)):
        raise ValueError("weights hold a number that is negative or not finite; expected 0 or more")
    return weights


def _as_floats(name: str, values) -> Float[Array, "..."]:
    """Return floats as float32 or wider, ready to be summed; ValueError for other dtypes."""
    dtype = _dtype_of(values)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} are {dtype}; expected floats, such as float32 or bfloat16")
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _dtype_of(values) -> np.dtype:
    return values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype


def _check_target_shape(targets, expected: tuple[int, ...], meaning: str) -> None:
    if jnp.shape(targets) != expected:
        raise ValueError(f"targets have shape {jnp.shape(targets)}; expected {expected}: {meaning}")
