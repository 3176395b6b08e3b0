"""An output layer for many words: rare words share a few logits of a small first softmax."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lstm_optax.models.chunked_losses import chunked_losses
from lstm_optax.models.losses import token_losses

SHRINK = 4  # a cluster has a fourth of the features of the one before it
PARTS = 8  # a chunk has this part of all tokens: about what a cluster of rare words has
LEAST = 64  # tokens of a chunk, so that its matrix product is efficient


class AdaptiveSoftmax(nnx.Module):
    """Log-probabilities of words, which are sorted from the most to the least frequent.

        log p(w) = log p(w | head)                      for w below the first cutoff
        log p(w) = log p(cluster | head) + log p(w | cluster)    for the others

    The head has a logit for each frequent word and for each cluster of rarer words. Cluster
    k = 1, 2, … reads ⌊hidden / 4ᵏ⌋ features, and is computed only for the targets in it, so most
    tokens need a small product only. The loss is exact. There are no biases.

    Args:
      hidden: number of input features.
      vocabulary: number of words.
      cutoffs: first word of each cluster, rising, each in 1 … vocabulary − 1.
      dtype, param_dtype: as in `nnx.Linear`.
      rngs: randomness of the parameters.

    Raises:
      ValueError: cutoffs that are not of that form.

    Reference: Grave, Joulin, Cissé, Grangier & Jégou, 2017, arXiv:1609.04309; the layout is that of
    `torch.nn.AdaptiveLogSoftmaxWithLoss`.
    """

    def __init__(
        self,
        hidden: int,
        vocabulary: int,
        cutoffs: tuple[int, ...],
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        bounds = (0, *cutoffs, vocabulary)
        if not cutoffs or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(
                f"cutoffs is {cutoffs}; expected rising whole numbers from 1 to below the "
                f"vocabulary, {vocabulary}"
            )
        options: dict[str, Any] = dict(use_bias=False, dtype=dtype, param_dtype=param_dtype)
        self.cutoffs: tuple[int, ...] = tuple(cutoffs)
        self.vocabulary: int = vocabulary
        self.head: nnx.Linear = nnx.Linear(hidden, cutoffs[0] + len(cutoffs), **options, rngs=rngs)
        self.tail: nnx.List[Any] = nnx.List()  # the names of PyTorch
        for k, (low, high) in enumerate(pairwise(bounds[1:]), 1):
            features = max(hidden // SHRINK**k, 1)
            first = nnx.Linear(hidden, features, **options, rngs=rngs)
            second = nnx.Linear(features, high - low, **options, rngs=rngs)
            self.tail.append(nnx.List([first, second]))

    def __call__(self, hidden: Float[Array, "*axes hidden"]) -> Float[Array, "*axes vocabulary"]:
        """Return the log-probabilities of all words, float32 or wider."""
        head = _log_softmax(self.head(hidden))
        first = self.cutoffs[0]
        parts = [head[..., :first]]
        for k, cluster in enumerate(self.tail):
            parts.append(_log_softmax(_logits(cluster, hidden)) + head[..., first + k, None])
        return jnp.concatenate(parts, axis=-1)

    def losses(
        self, hidden: Float[Array, "*axes hidden"], targets: Int[Array, "*axes"]
    ) -> Float[Array, ""]:
        """Return the sum of −log p(target), as `token_losses` of the log-probabilities does."""
        total, _ = token_losses(self.head(hidden), self._head_targets(targets))
        size = max(LEAST, -(-targets.size // PARTS))
        bounds = pairwise((*self.cutoffs, self.vocabulary))
        for cluster, (first, end) in zip(self.tail, bounds, strict=True):
            inside = (targets >= first) & (targets < end)
            own = jnp.where(inside, targets - first, -1)
            total += chunked_losses(_logits, cluster, hidden, own, size)
        return total

    def _head_targets(self, targets: Int[Array, "*axes"]) -> Int[Array, "*axes"]:
        """Return the index of each target in the head: its own, or that of its cluster.

        A target that is too large stays too large, and makes the loss NaN.
        """
        first, *others = self.cutoffs
        cluster = sum((targets >= cutoff).astype(targets.dtype) for cutoff in others)
        found = jnp.where(targets < first, targets, first + cluster)
        return jnp.where(targets < self.vocabulary, found, first + len(self.cutoffs))


def _logits(cluster: Any, hidden: Float[Array, "*axes hidden"]) -> jax.Array:
    first, second = cluster
    return second(first(hidden))


def _log_softmax(logits: Float[Array, "*axes classes"]) -> Float[Array, "*axes classes"]:
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
