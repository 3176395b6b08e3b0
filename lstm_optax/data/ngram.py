"""Character n-gram models, as baselines for a trained model.

A model with a lower loss than the best of them has learned something that a table of short contexts
cannot hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data.text import TextError


def ngram_losses(
    train: NDArray[np.integer],
    validation: NDArray[np.integer],
    vocabulary_size: int,
    max_order: int = 4,
) -> dict[str, float]:
    """Return the validation losses of the uniform model and of n-gram models counted on `train`.

    Interpolated Witten-Bell smoothing; h is the k characters before w, h′ is h without its oldest:

        P(w|h) = (c(h,w) + T(h) P(w|h′)) / (c(h) + T(h)),    P(w) without context: 1/V

    with c the counts and T(h) the number of distinct characters seen after h. For a context that
    was never seen, P(w|h) = P(w|h′).

    Args:
      train, validation: codes [N], [M] in 0 … V−1. Every character of `validation` except the
        first is predicted; the contexts of the first few reach back into `train`.
      vocabulary_size: V.
      max_order: the longest context k, in characters; k = 4 is the 5-gram.

    Returns:
      Mean negative log likelihoods in nats per character: "uniform", "1-gram", "2-gram", …

    Raises:
      TextError: no character to count in `train`, or none to predict in `validation`.
      ValueError: a code outside the vocabulary, or a negative `max_order`.

    Reference: Witten and Bell, 1991, method C, doi:10.1109/18.87000.
    """
    _check_codes(train, validation, vocabulary_size, max_order)
    codes = np.concatenate([train, validation])
    probability = np.full(len(validation) - 1, 1 / vocabulary_size)
    losses = {"uniform": _mean_loss(probability)}
    context = np.zeros(len(codes), np.int64)
    for order in range(max_order + 1):
        counted = len(train) - order  # number of characters of `train` with a full context
        if counted > 0:
            grams, gram = np.unique(context * vocabulary_size + codes[order:], return_inverse=True)
            probability = _interpolate(
                probability, context, gram, grams // vocabulary_size, counted
            )
            context = gram[:-1]  # an n-gram is the context of the next character, one longer
        losses[f"{order + 1}-gram"] = _mean_loss(probability)
    return losses


def _interpolate(
    shorter: NDArray[np.float64],
    context: NDArray[np.int64],
    gram: NDArray[np.int64],
    gram_context: NDArray[np.int64],
    counted: int,
) -> NDArray[np.float64]:
    """Return P(w|h) [targets] from P(w|h′) = `shorter` [targets].

    `context` and `gram` [positions] are the numbers of h and (h, w) at each position. The first
    `counted` positions are counted, the last are the targets. `gram_context` [grams] maps the
    number of (h, w) to that of h.
    """
    gram_count = np.bincount(gram[:counted], minlength=len(gram_context))
    contexts = gram_context[-1] + 1
    context_count = np.bincount(context[:counted], minlength=contexts)
    followers = np.bincount(gram_context[gram_count > 0], minlength=contexts)
    h, hw = context[-len(shorter) :], gram[-len(shorter) :]
    total = context_count[h] + followers[h]
    mixed = (gram_count[hw] + followers[h] * shorter) / np.maximum(total, 1)
    return np.where(total > 0, mixed, shorter)


def _mean_loss(probability: NDArray[np.float64]) -> float:
    return float(-np.log(probability).mean())


def _check_codes(
    train: NDArray[np.integer],
    validation: NDArray[np.integer],
    vocabulary_size: int,
    max_order: int,
) -> None:
    if len(train) < 1 or len(validation) < 2:
        raise TextError(
            f"n-gram models need 1 character to count and 2 to predict, not {len(train)} and "
            f"{len(validation)}: use a longer text"
        )
    low = min(train.min(), validation.min())
    high = max(train.max(), validation.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(f"codes span {low} … {high}, not 0 … {vocabulary_size - 1}")
    if max_order < 0:
        raise ValueError(f"max_order is {max_order}, but must be 0 or more")
