"""The losses and the terms on activations against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_for

from lstm_optax import (
    activation_regularizer,
    sequence_losses,
    temporal_activation_regularizer,
    token_losses,
)

T, B, H = 5, 3, 4


def outputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(T, B, H))


def counted() -> np.ndarray:
    return np.arange(T)[:, None] < np.array([5, 2, 0])


def loop(h, counts) -> tuple[float, float]:
    """Return both terms, computed by loops over rows and steps."""
    ar, tar, steps, pairs = 0.0, 0.0, 0, 0
    for row in range(h.shape[1]):
        for t in range(h.shape[0]):
            if counts[t, row]:
                ar, steps = ar + np.sum(h[t, row] ** 2), steps + 1
            if t and counts[t, row] and counts[t - 1, row]:
                tar, pairs = tar + np.sum((h[t, row] - h[t - 1, row]) ** 2), pairs + 1
    return ar / (steps * h.shape[2]), tar / (pairs * h.shape[2])


@pytest.mark.parametrize("counts", [None, counted()], ids=["all", "some"])
def test_activation_terms_equal_loops(counts, x64):
    h = outputs()
    ar, tar = loop(h, np.ones((T, B), bool) if counts is None else counts)
    np.testing.assert_allclose(activation_regularizer(h, counts), ar, rtol=1e-12)
    np.testing.assert_allclose(temporal_activation_regularizer(h, counts), tar, rtol=1e-12)


@pytest.mark.slow
def test_uncounted_steps_have_no_gradient():
    h = jnp.asarray(outputs(), jnp.float32).at[3, 1].set(jnp.inf)
    for term in (activation_regularizer, temporal_activation_regularizer):
        gradient = jax.grad(lambda h, f=term: f(jnp.where(counted()[..., None], h, 0), counted()))(
            h
        )
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(np.any(gradient != 0, -1), counted())


@pytest.mark.parametrize("term", [activation_regularizer, temporal_activation_regularizer])
@pytest.mark.parametrize("shape", [(B, T), (T, 1), (T,)])
def test_mask_of_wrong_shape_is_named(term, shape):
    with pytest.raises(ValueError, match=r"counted has shape \(.*\); expected \(5, 3\): time by"):
        term(outputs(), np.ones(shape, bool))


def test_empty_mask_is_zero():
    none = np.zeros((T, B), bool)
    assert activation_regularizer(outputs(), none) == 0
    assert temporal_activation_regularizer(outputs(), none) == 0
    assert temporal_activation_regularizer(outputs()[:1]) == 0
    assert temporal_activation_regularizer(outputs()[:1], counted()[:1]) == 0
    assert sequence_losses(outputs(), outputs(), none) == (0, 0)
    assert token_losses(outputs(), np.ones((T, B), int), none) == (0, 0)


def test_half_precision_terms_sum_in_float32():
    h = jnp.full((64, 64, 64), 1.0, jnp.bfloat16)
    assert activation_regularizer(h) == 1 and activation_regularizer(h).dtype == jnp.float32


def test_dtype_of_targets_selects_loss():
    answers = outputs().astype(np.float32)
    numbers = np.ones((T, B, H), np.float32)
    total, count = sequence_losses(answers, numbers)
    assert count == T * B * H
    np.testing.assert_allclose(total, np.square(answers - 1).sum(), rtol=1e-6)
    classes = np.random.default_rng(1).integers(-1, H, (T, B))
    np.testing.assert_allclose(sequence_losses(answers, classes), token_losses(answers, classes))
    total, count = sequence_losses(answers[0], classes[0])
    assert count == (classes[0] >= 0).sum()


WEIGHTS = [None, counted(), counted() * np.float32([[0.5, 2.0, 1.0]]), counted().astype(np.int32)]


def squares_by_hand(answers, targets, weights) -> tuple[float, float]:
    """Return the sums of squared errors and weights by a loop that skips weights of 0."""
    total, count = 0.0, 0.0
    for place in np.ndindex(answers.shape):
        weight = 1.0 if weights is None else float(np.broadcast_to(weights, answers.shape)[place])
        if weight:
            total += weight * (float(answers[place]) - float(targets[place])) ** 2
            count += weight
    return total, count


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS, ids=["none", "mask", "weights", "integers"])
@pytest.mark.parametrize("last", [False, True], ids=["every step", "last step"])
def test_weighted_squares_equal_loop(weights, last, x64):
    answers, targets = outputs(), np.random.default_rng(1).normal(size=(T, B, H))
    if last:  # one output for each row
        answers, targets = answers[0], targets[0]
        weights = None if weights is None else weights[0]
    if weights is not None:  # with a weight of 0 even NaN has no influence
        answers, targets = (
            np.where(weights[..., None] != 0, a, np.nan) for a in (answers, targets)
        )
    by_hand = squares_by_hand(answers, targets, None if weights is None else weights[..., None])
    for traced in (False, True):
        run = jax.jit(sequence_losses) if traced else sequence_losses
        np.testing.assert_allclose(run(answers, targets, weights), by_hand, rtol=1e-12)


def test_padded_steps_do_not_count():
    """Two rows of 5 and 2 steps have 7 targets, not 10."""
    lengths = np.array([5, 2])
    mask = np.arange(5)[:, None] < lengths
    answers, targets = np.zeros((5, 2, 1), np.float32), np.ones((5, 2, 1), np.float32)
    assert sequence_losses(answers, targets) == (10, 10)
    assert sequence_losses(answers, targets, mask) == (7, 7)
    assert token_losses(np.zeros((5, 2, 2), np.float32), np.ones((5, 2), int), mask)[1] == 7


def test_single_outputs_may_be_masked():
    """As in a record of several gauges, each with its own gaps."""
    answers, targets = outputs(), np.random.default_rng(1).normal(size=(T, B, H))
    targets[1, 2, 3] = targets[0, 0, :2] = np.nan
    mask = ~np.isnan(targets)
    by_hand = squares_by_hand(answers, targets, mask)
    np.testing.assert_allclose(sequence_losses(answers, targets, mask), by_hand, rtol=1e-5)
    assert by_hand[1] == T * B * H - 3


def cross_entropies_by_hand(logits, targets, weights) -> tuple[float, float]:
    total, count = 0.0, 0.0
    for place in np.ndindex(targets.shape):
        weight = 1.0 if weights is None else float(weights[place])
        if weight and targets[place] >= 0:
            row = logits[place]
            total += weight * (np.log(np.sum(np.exp(row))) - row[targets[place]])
            count += weight
    return total, count


@pytest.mark.parametrize("weights", WEIGHTS, ids=["none", "mask", "weights", "integers"])
@pytest.mark.parametrize(
    "losses, kind",
    [
        (sequence_losses, np.int32),
        (token_losses, np.uint8),
        pytest.param(token_losses, np.int8, marks=pytest.mark.slow),
        pytest.param(token_losses, np.int32, marks=pytest.mark.slow),
    ],
)
def test_weighted_cross_entropies_equal_loop(weights, losses, kind, x64):
    logits, targets = outputs(), np.random.default_rng(1).integers(0, H, (T, B)).astype(kind)
    if weights is not None:
        logits = np.where(weights[..., None] != 0, logits, np.nan)
        targets = np.where(weights != 0, targets, 100).astype(kind)  # padding above the vocabulary
    if kind != np.uint8:
        targets[0, 0] = -1
    by_hand = cross_entropies_by_hand(logits, targets, weights)
    for run in (losses, jax.jit(losses)):
        np.testing.assert_allclose(run(logits, targets, weights), by_hand, rtol=1e-12)


@pytest.mark.parametrize("kind", plain_for(["classes", "numbers"], ["classes"]))
def test_zero_weight_has_no_gradient(kind):
    mask = counted()
    answers = jnp.where(mask[..., None], outputs(), jnp.nan)
    targets = np.where(mask, 1, 100)
    if kind == "numbers":
        targets = np.broadcast_to(np.where(mask[..., None], 1.0, np.inf), (T, B, H))
    for run in (sequence_losses, jax.jit(sequence_losses)):
        gradient = jax.grad(lambda a, f=run: f(a, targets, mask)[0])(answers)
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(np.any(gradient != 0, -1), mask)


def test_activation_terms_skip_uncounted_nan():
    h = jnp.where(counted()[..., None], outputs(), jnp.nan)
    plain = jnp.where(counted()[..., None], outputs(), 0)
    for term in (activation_regularizer, temporal_activation_regularizer):
        value, gradient = jax.value_and_grad(term)(h, counted())
        assert value == term(plain, counted()) and np.all(np.isfinite(gradient))


def test_half_precision_errors_sum_in_float32():
    ones = jnp.ones((64, 64, 8), jnp.bfloat16)
    total, count = sequence_losses(ones, jnp.zeros_like(ones))
    assert total == count == 64 * 64 * 8 and total.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_tokens_sum_in_float32(dtype):
    logits = jnp.zeros((64, 65, 3), dtype)
    targets, weights = jnp.zeros((64, 65), int), jnp.full((64, 65), 20, dtype)
    for given, expected in ((None, 64 * 65), (weights, 64 * 65 * 20)):
        total, count = jax.jit(token_losses)(logits, targets, given)
        assert total.dtype == jnp.float32 and count == expected
        np.testing.assert_allclose(total, expected * np.log(3), rtol=1e-6)
    _, count = sequence_losses(logits, jnp.zeros_like(logits), weights)
    assert count.dtype == jnp.float32 and count == 64 * 65 * 3 * 20


@pytest.mark.parametrize("dtype", [jnp.uint32, jnp.uint64, jnp.int64])
def test_huge_traced_targets_are_nan(dtype, x64):
    targets = jnp.full((T, B), 2**32 - 1, dtype)
    total, count = jax.jit(token_losses)(outputs().astype(np.float32), targets)
    assert np.isnan(total) and count == T * B


def test_unsigned_targets_beyond_int32_are_nan():
    targets = np.full((T, B), 2**32 - 1, np.uint32)
    total, _ = jax.jit(token_losses)(outputs().astype(np.float32), targets)
    assert np.isnan(total)


def test_wrong_dtypes_of_losses_are_named():
    x, ids, ones = outputs().astype(np.float32), np.ones((T, B), int), np.ones((T, B))
    for bad in (x.astype(complex), x.astype(int), np.full(x.shape, "a"), x.astype(object)):
        with pytest.raises(ValueError, match="^logits are .*; expected floats"):
            token_losses(bad, ids)
        with pytest.raises(ValueError, match="^outputs are .*; expected floats"):
            sequence_losses(bad, x)
    for bad in (x.astype(complex), x > 0, np.full(x.shape, "a"), None):
        with pytest.raises(ValueError, match="^targets are .*; expected floats"):
            sequence_losses(x, bad)
    for bad in (1j * ones, np.full((T, B), "a"), ones.astype(object)):
        with pytest.raises(ValueError, match="^weights are .*; expected floats"):
            token_losses(x, ids, bad)
        with pytest.raises(ValueError, match="^weights are .*; expected floats"):
            sequence_losses(x, x, bad)


@pytest.mark.parametrize("losses", [token_losses, sequence_losses])
def test_target_out_of_range_is_named(losses):
    targets = np.full((T, B), H)
    with pytest.raises(ValueError, match="targets has 4; expected below 4: there are 4 ids"):
        losses(outputs(), targets)
    total, gradient = jax.jit(jax.value_and_grad(lambda x, y: losses(x, y)[0]))(
        outputs().astype(np.float32), targets
    )
    assert np.isnan(total) and np.all(np.isnan(gradient))
    with pytest.raises(ValueError, match=r"targets have shape \(5,\); expected \(5, 3\)"):
        losses(outputs(), targets[:, 0])


def test_token_losses_reject_float_targets():
    with pytest.raises(ValueError, match="targets is float32; expected integers"):
        token_losses(outputs(), np.ones((T, B), np.float32))


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones((B, T)), r"weights have shape \(3, 5\); expected \(5, 3\)"),
        (np.ones(T), r"weights have shape \(5,\); expected \(5, 3\)"),
        (-np.ones((T, B)), "negative or not finite; expected 0 or more"),
        (np.full((T, B), np.nan), "negative or not finite"),
    ],
)
@pytest.mark.parametrize("kind", [int, np.float32])
def test_bad_weights_are_named(weights, message, kind):
    targets = np.ones((T, B) if kind is int else (T, B, H), kind)
    with pytest.raises(ValueError, match=message):
        sequence_losses(outputs(), targets, weights)


@pytest.mark.parametrize(
    "targets, message",
    [
        (np.ones((T, B), np.float32), r"shape \(5, 3\); expected \(5, 3, 4\): numbers"),
        (np.ones((T, B, H), np.int32), r"shape \(5, 3, 4\); expected \(5, 3\): classes"),
    ],
    ids=["numbers", "classes"],
)
def test_targets_of_wrong_shape_are_named(targets, message):
    with pytest.raises(ValueError, match=message):
        sequence_losses(outputs(), targets)
