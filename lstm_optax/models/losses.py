"""What a model is trained by: losses as sums with their counts, and terms on its activations."""

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
    """Return the summed cross-entropy in nats, and over how many tokens.

        (Σ w · (log Σⱼ exp logitsⱼ − logits_target), Σ w)

    Args:
      logits: of each class or token, along the last axis.
      targets: ids below the vocabulary; a target below 0 stands for nothing to predict, and does
        not count.
      weights: w, 0 or more; a mask is one of bools. All 1 if None. Where it is 0, the logits have
        no influence, not even those that are not finite.

    Raises:
      ValueError: shapes that do not fit, targets that are no integers, or a known target or weight
        out of range. The loss of a traced target out of range is NaN, and so is its gradient.
    """
    logits = _wide("logits", logits)
    vocabulary, axes = logits.shape[-1], logits.shape[:-1]
    _check_shape("targets", targets, axes, f"ids for logits of shape {logits.shape}")
    given, targets = targets, signed_ids("targets", targets)
    if weights is not None:
        weights = _checked_weights(weights, axes)
        given = targets = jnp.where(weights != 0, targets, -1)
        logits = jnp.where((targets >= 0)[..., None], logits, 0)
    check_range("targets", given, vocabulary, least=None)
    counted = targets >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, targets, 0))
    losses = losses * jnp.where(targets < vocabulary, 1, jnp.nan)
    weights = counted if weights is None else jnp.where(counted, weights, 0)
    return jnp.sum(jnp.where(counted, losses * weights, 0)), jnp.sum(weights)


def sequence_losses(
    outputs: Float[Array, "*axes outputs"],
    targets: Shaped[Array, "*answers"],
    weights: Shaped[Array, "*answers"] | None = None,
) -> tuple[Float[Array, ""], Num[Array, ""]]:
    """Return the summed loss of a sequence model, and over how many answers.

    The targets' dtype says which: the cross-entropy of `token_losses` for integers, which are
    classes; the squared error for floats, (Σ w · (outputs − targets)², Σ w).

    Args:
      outputs: logits or numbers, the last axis that of the outputs; of every step or of one.
      targets: classes, without that axis, or numbers, of the outputs' shape.
      weights: w, 0 or more, for each answer, without the axis of the outputs; for numbers also of
        the outputs' shape. A mask is one of bools: `t < seq_lengths`, or `~isnan(targets)`. All 1
        if None. Where it is 0, outputs and targets have no influence, not even those that are NaN.

    Raises:
      ValueError: targets or weights of another shape, or a known class or weight out of range.
    """
    outputs = _wide("outputs", outputs)
    axes = outputs.shape[:-1]
    if jnp.issubdtype(_dtype(targets), jnp.integer):
        _check_shape("targets", targets, axes, f"classes for outputs of shape {outputs.shape}")
        return token_losses(outputs, targets, weights)
    targets = _wide("targets", targets)
    _check_shape("targets", targets, outputs.shape, f"numbers for outputs of shape {outputs.shape}")
    if weights is None:
        return jnp.sum(jnp.square(outputs - targets)), jnp.asarray(outputs.size)
    weights = _checked_weights(weights, axes, outputs.shape)
    weights = weights if weights.shape == outputs.shape else weights[..., None]
    weights = jnp.broadcast_to(weights, outputs.shape)
    counted = weights != 0
    errors = jnp.where(counted, outputs, 0) - jnp.where(counted, targets, 0)
    return jnp.sum(jnp.square(errors) * weights), jnp.sum(weights)


def activation_regularizer(
    dropped: Float[Array, "time batch hidden"], counted: Bool[Array, "time batch"] | None = None
) -> Float[Array, ""]:
    """Return AR, which keeps the outputs of an LSTM small.

        mean((m ⊙ h)²)

    Args:
      dropped: m ⊙ h, the outputs of the last layer after their dropout.
      counted: the steps that count; all if None.

    Raises:
      ValueError: `counted` of another shape than [time, batch].

    Reference: Merity, McCann & Socher, 2017, arXiv:1708.01009; as a mean of squares, which the
    authors' code takes for the norm of the text.
    """
    return _mean_square(dropped, _counted(dropped, counted))


def temporal_activation_regularizer(
    raw: Float[Array, "time batch hidden"], counted: Bool[Array, "time batch"] | None = None
) -> Float[Array, ""]:
    """Return TAR, which keeps the outputs of an LSTM from changing fast.

        mean((h_{t+1} − h_t)²), and 0 for a single step

    Args:
      raw: h, the outputs of the last layer before their dropout.
      counted: the steps that count; a pair does if both do; all if None.

    Raises:
      ValueError: `counted` of another shape than [time, batch].

    Reference: Merity, McCann & Socher, 2017, arXiv:1708.01009; as a mean of squares, which the
    authors' code takes for the norm of the text.
    """
    counted = _counted(raw, counted)
    both = None if counted is None else counted[1:] & counted[:-1]
    return _mean_square(raw[1:] - raw[:-1], both)


def _counted(x, counted) -> Bool[Array, "time batch"] | None:
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


def _checked_weights(given, *shapes: tuple[int, ...]) -> Shaped[Array, "..."]:
    exact = any(jnp.issubdtype(_dtype(given), kind) for kind in (jnp.bool_, jnp.integer))
    weights = jnp.asarray(given) if exact else _wide("weights", given)
    if weights.shape not in shapes:
        raise ValueError(
            f"weights have shape {weights.shape}; expected {' or '.join(map(str, shapes))}"
        )
    values = known(given)
    if values is not None and not np.all((values >= 0) & (values < np.inf)):
        raise ValueError("weights hold a number that is negative or not finite; expected 0 or more")
    return weights


def _wide(name: str, values) -> Float[Array, "..."]:
    """Return floats in float32 or better, to be summed; ValueError for anything else."""
    dtype = _dtype(values)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} are {dtype}; expected floats, such as float32 or bfloat16")
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _dtype(values) -> np.dtype:
    return values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype


def _check_shape(name: str, value, expected: tuple[int, ...], meaning: str) -> None:
    if jnp.shape(value) != expected:
        raise ValueError(f"{name} have shape {jnp.shape(value)}; expected {expected}: {meaning}")
