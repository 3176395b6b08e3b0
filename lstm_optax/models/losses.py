"""What a model is trained by: losses as sums with their counts, and terms on its activations."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def token_losses(
    logits: Float[Array, "*axes vocabulary"], targets: Int[Array, "*axes"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return the summed cross-entropy in nats, and over how many tokens.

    A target below 0 stands for nothing to predict, and does not count.
    """
    counted = targets >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, targets, 0))
    return jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted)


def sequence_losses(
    outputs: Float[Array, "*axes outputs"], targets: Array
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return the summed loss of a sequence model, and over how many answers.

    The targets' dtype says which: the cross-entropy of `token_losses` for integers, which are
    classes; the squared error for floats.

    Args:
      outputs: logits or numbers, the last axis that of the outputs.
      targets: classes, without that axis, or numbers, of the outputs' shape.

    Raises:
      ValueError: targets of another shape.
    """
    classes = jnp.issubdtype(targets.dtype, jnp.integer)
    expected = outputs.shape[:-1] if classes else outputs.shape
    if targets.shape != expected:
        kind = "classes" if classes else "numbers"
        raise ValueError(
            f"targets have shape {targets.shape}; expected {expected}: {kind} for outputs of shape "
            f"{outputs.shape}"
        )
    if classes:
        return token_losses(outputs, targets)
    return jnp.sum(jnp.square(outputs - targets)), jnp.asarray(targets.size)


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
    squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    if counted is None:
        return jnp.sum(squares) / max(squares.size, 1)
    total = jnp.sum(jnp.where(counted[:, :, None], squares, 0))
    return total / jnp.maximum(jnp.sum(counted) * x.shape[-1], 1)
