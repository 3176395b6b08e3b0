"""Character n-gram models, as baselines for a trained model.

A model with a lower loss than the best of them has learned something that a table of short contexts
cannot hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lstm_optax.data.text import TextError

PIECE = 2**16  # numbers that are looked up at once


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

    This needs about 18 bytes of memory for each character of `train`, and 80 for each of
    `validation`, whatever V and `max_order`.

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
    probability = np.full(len(validation) - 1, 1 / vocabulary_size)
    losses = {"uniform": _mean_loss(probability)}
    # the targets, after the characters that their contexts reach back to
    held_out = np.concatenate([train[max(len(train) - max_order, 0) :], validation])
    context, held_out_context = (np.zeros(len(codes), np.uint8) for codes in (train, held_out))
    for order in range(max_order + 1):
        if len(train) > order:  # else no character of `train` has a full context
            counted = _pair(context, train[order:], vocabulary_size)
            gram = _pair(held_out_context, held_out[order:], vocabulary_size)
            # An n-gram is the context of the next character, one longer. All that are not in
            # `held_out` get one number, since they are the context of no target.
            grams = np.unique(gram)
            context, held_out_context = _find(counted, grams)[:-1], _find(gram, grams)[:-1]
            counted.sort()
            target = gram[-len(probability) :]
            probability = _interpolate(probability, target, counted, vocabulary_size)
        losses[f"{order + 1}-gram"] = _mean_loss(probability)
    return losses


def _pair(
    context: NDArray[np.integer], codes: NDArray[np.integer], vocabulary_size: int
) -> NDArray[np.int64]:
    """Return a number V h + w for each context h and the character w after it."""
    pairs = np.multiply(context, np.int64(vocabulary_size), dtype=np.int64)
    return np.add(pairs, codes, out=pairs, casting="unsafe")


def _find(numbers: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Return the index of each number in `known`, which is sorted; len(known) if it is not there.

    The numbers are looked up in pieces, and the indices are in the smallest dtype that holds them.
    """
    found = np.empty(len(numbers), np.min_scalar_type(len(known)))
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE]
        index = np.searchsorted(known, piece)
        is_known = known[np.minimum(index, len(known) - 1)] == piece
        found[start : start + PIECE] = np.where(is_known, index, len(known))
    return found


def _interpolate(
    shorter: NDArray[np.float64],
    target: NDArray[np.int64],
    counted: NDArray[np.int64],
    vocabulary_size: int,
) -> NDArray[np.float64]:
    """Return P(w|h) [targets] from P(w|h′) = `shorter` [targets].

    `target` [targets] and `counted` [positions] are the numbers of (h, w), see `_pair`. `counted`
    is sorted, so the n-grams of a context are next to each other.
    """
    distinct = np.ones(len(counted) + 1, np.min_scalar_type(len(counted)))
    distinct[0], distinct[2:] = 0, counted[1:] != counted[:-1]
    np.cumsum(distinct, dtype=distinct.dtype, out=distinct)  # in the first 0, 1, … positions
    first = target - target % vocabulary_size
    start, end = np.searchsorted(counted, [first, first + vocabulary_size])
    gram_count = np.searchsorted(counted, target, "right") - np.searchsorted(counted, target)
    followers = distinct[end] - distinct[start]
    total = end - start + followers
    mixed = (gram_count + followers * shorter) / np.maximum(total, 1)
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
