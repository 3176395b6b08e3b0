"""The n-gram models against a dictionary oracle, and on the text that ships with Python."""

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_optax.data import TextError, Vocabulary, ngram, ngram_losses, split, topics_text

PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)
CODES = st.lists(st.integers(0, 3), min_size=2, max_size=40)


def oracle_probability(train, context, character, vocabulary_size):
    """Return P(character | context) from the formula, by counting in the list `train`."""
    if context:
        shorter = oracle_probability(train, context[1:], character, vocabulary_size)
    else:
        shorter = 1 / vocabulary_size
    order = len(context)
    after = Counter(train[i] for i in range(order, len(train)) if train[i - order : i] == context)
    if not after:
        return shorter
    return (after[character] + len(after) * shorter) / (after.total() + len(after))


def oracle_loss(train, validation, vocabulary_size, order):
    text, losses = train + validation, []
    for i in range(len(train) + 1, len(text)):
        context = text[max(0, i - order) : i]
        losses.append(-math.log(oracle_probability(train, context, text[i], vocabulary_size)))
    return sum(losses) / len(losses)


def as_codes(numbers):
    return np.array(numbers, np.int32)


@PROPERTY
@given(CODES, CODES, st.integers(4, 9))
def test_ngram_losses_equal_oracle(train, validation, vocabulary_size):
    losses = ngram_losses(as_codes(train), as_codes(validation), vocabulary_size, max_order=5)
    assert losses.pop("uniform") == pytest.approx(math.log(vocabulary_size), rel=1e-12)
    assert list(losses) == ["1-gram", "2-gram", "3-gram", "4-gram", "5-gram", "6-gram"]
    for order, loss in enumerate(losses.values()):
        expected = oracle_loss(train, validation, vocabulary_size, order)
        assert loss == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([3], [0, 3, 3]),  # fewer characters than the longest context
        ([3, 3], [3, 3]),
        ([3] * 9, [3] * 9),
        ([3, 0, 3, 0, 3], [1, 2, 3, 0, 3]),
        ([0, 1, 2, 3] * 5, [3, 3, 0, 1, 2]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_ngram_losses_at_edges(train, validation, dtype):
    arrays = (np.array(codes, dtype) for codes in (train, validation))
    losses = list(ngram_losses(*arrays, 4, max_order=5).values())[1:]
    expected = [oracle_loss(train, validation, 4, order) for order in range(6)]
    assert losses == pytest.approx(expected, rel=1e-12)


def words(count: int) -> np.ndarray:
    """Return random words [count] out of 3,000, in Zipf's law."""
    chances = 1 / np.arange(1, 3001)
    return np.random.default_rng(0).choice(3000, count, p=chances / chances.sum())


def test_pieces_do_not_change_losses(monkeypatch):
    parts = words(3000), words(200)
    expected = ngram_losses(*parts, 3000)
    monkeypatch.setattr(ngram, "PIECE", 7)
    assert ngram_losses(*parts, 3000) == expected


def test_memory_of_ngram_counts():
    parts = words(400_000), words(2000)
    tracemalloc.start()
    try:
        ngram_losses(*parts, 3000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 28 * 400_000


@pytest.mark.slow
def test_ngram_losses_of_topics_equal_oracle():
    text = topics_text()[:3000]
    vocabulary = Vocabulary.of(text)
    train, validation = split(vocabulary.encode(text), 0.05)
    losses = list(ngram_losses(train, validation, len(vocabulary)).values())[1:]
    for order, loss in enumerate(losses):
        expected = oracle_loss(train.tolist(), validation.tolist(), len(vocabulary), order)
        assert loss == pytest.approx(expected, rel=1e-12)


@PROPERTY
@given(CODES, CODES)
def test_ngram_probabilities_sum_to_one(train, context):
    train, context = as_codes(train), as_codes(context)[-1:]
    every = [ngram_losses(train, np.append(context, next_), 6) for next_ in range(6)]
    for name in every[0]:
        assert sum(math.exp(-losses[name]) for losses in every) == pytest.approx(1, abs=1e-12)


def test_ngram_losses_by_hand():
    # "abab" then "ab": c(b) = 2 of 4, T = 2; after "a" only "b" was seen, twice.
    losses = ngram_losses(as_codes([0, 1, 0, 1]), as_codes([0, 1]), 4, max_order=1)
    unigram = (2 + 2 / 4) / (4 + 2)
    bigram = (2 + 1 * unigram) / (2 + 1)
    expected = {"uniform": math.log(4), "1-gram": -math.log(unigram), "2-gram": -math.log(bigram)}
    assert losses == pytest.approx(expected, rel=1e-12)


def test_first_contexts_reach_into_train():
    train, validation = as_codes([0, 1, 2, 0, 1, 2, 0]), as_codes([1, 2])
    losses = ngram_losses(train, validation, 3, max_order=3)  # 2 after (2,) 0, 1: seen twice
    assert losses["4-gram"] < losses["3-gram"] < losses["2-gram"]


def test_unicode_vocabulary_does_not_overflow():
    rng = np.random.default_rng(0)
    train, validation = rng.integers(0, 4, 300).tolist(), rng.integers(0, 4, 30).tolist()
    size = 0x110000
    train, validation = ([size - 1 - code for code in codes] for codes in (train, validation))
    losses = ngram_losses(as_codes(train), as_codes(validation), size, max_order=6)
    assert losses["7-gram"] == pytest.approx(oracle_loss(train, validation, size, 6), rel=1e-12)


def test_topics_have_expected_ngram_losses():
    text = topics_text()
    vocabulary = Vocabulary.of(text)
    losses = ngram_losses(*split(vocabulary.encode(text)), len(vocabulary))
    assert losses["uniform"] == pytest.approx(math.log(len(vocabulary)), rel=1e-12)
    # Python 3.11: 3.236, 2.318, 1.711, 1.403, 1.319; 3.13: 3.213, 2.329, 1.744, 1.445, 1.370
    baselines = list(losses.values())[1:]
    assert np.abs(np.array(baselines) - [3.23, 2.33, 1.73, 1.43, 1.35]).max() < 0.1
    assert baselines == sorted(baselines, reverse=True)


@pytest.mark.parametrize(("train", "validation"), [([], [0, 1]), ([0, 1], [0]), ([0], [])])
def test_ngram_losses_reject_short_text(train, validation):
    with pytest.raises(TextError, match="1 character to count and 2 to predict, .*longer text"):
        ngram_losses(as_codes(train), as_codes(validation), 2)


@pytest.mark.parametrize(("train", "validation"), [([0, 2], [0, 1]), ([0, 1], [0, -1])])
def test_ngram_losses_reject_codes_outside_vocabulary(train, validation):
    with pytest.raises(ValueError, match="not 0 … 1"):
        ngram_losses(as_codes(train), as_codes(validation), 2)


def test_ngram_losses_reject_negative_order():
    with pytest.raises(ValueError, match="max_order is -1, but must be 0 or more"):
        ngram_losses(as_codes([0, 1]), as_codes([0, 1]), 2, max_order=-1)
