"""The losses of sequence models, and the terms on activations against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    """Both terms as loops over rows and steps."""
    ar, tar, steps, pairs = 0.0, 0.0, 0, 0
    for row in range(h.shape[1]):
        for t in range(h.shape[0]):
            if counts[t, row]:
                ar, steps = ar + np.sum(h[t, row] ** 2), steps + 1
            if t and counts[t, row] and counts[t - 1, row]:
                tar, pairs = tar + np.sum((h[t, row] - h[t - 1, row]) ** 2), pairs + 1
    return ar / (steps * h.shape[2]), tar / (pairs * h.shape[2])


@pytest.mark.parametrize("counts", [None, counted()], ids=["all", "some"])
def test_the_terms_on_activations_equal_their_loops(counts, x64):
    h = outputs()
    ar, tar = loop(h, np.ones((T, B), bool) if counts is None else counts)
    np.testing.assert_allclose(activation_regularizer(h, counts), ar, rtol=1e-12)
    np.testing.assert_allclose(temporal_activation_regularizer(h, counts), tar, rtol=1e-12)


def test_what_does_not_count_has_no_gradient():
    h = jnp.asarray(outputs(), jnp.float32).at[3, 1].set(jnp.inf)
    for term in (activation_regularizer, temporal_activation_regularizer):
        gradient = jax.grad(lambda h, f=term: f(jnp.where(counted()[..., None], h, 0), counted()))(
            h
        )
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(np.any(gradient != 0, -1), counted())


@pytest.mark.parametrize("term", [activation_regularizer, temporal_activation_regularizer])
@pytest.mark.parametrize("shape", [(B, T), (T, 1), (T,)])
def test_a_mask_of_another_shape_is_named(term, shape):
    with pytest.raises(ValueError, match=r"counted has shape \(.*\); expected \(5, 3\): time by"):
        term(outputs(), np.ones(shape, bool))


def test_nothing_to_count_is_zero():
    none = np.zeros((T, B), bool)
    assert activation_regularizer(outputs(), none) == 0
    assert temporal_activation_regularizer(outputs(), none) == 0
    assert temporal_activation_regularizer(outputs()[:1]) == 0
    assert temporal_activation_regularizer(outputs()[:1], counted()[:1]) == 0


def test_half_precision_is_summed_in_float32():
    h = jnp.full((64, 64, 64), 1.0, jnp.bfloat16)
    assert activation_regularizer(h) == 1 and activation_regularizer(h).dtype == jnp.float32


def test_numbers_cost_their_squares_and_classes_their_cross_entropy():
    answers = outputs().astype(np.float32)
    numbers = np.ones((T, B, H), np.float32)
    total, count = sequence_losses(answers, numbers)
    assert count == T * B * H
    np.testing.assert_allclose(total, np.square(answers - 1).sum(), rtol=1e-6)
    classes = np.random.default_rng(1).integers(-1, H, (T, B))
    np.testing.assert_allclose(sequence_losses(answers, classes), token_losses(answers, classes))
    total, count = sequence_losses(answers[0], classes[0])
    assert count == (classes[0] >= 0).sum()


@pytest.mark.parametrize(
    "targets, message",
    [
        (np.ones((T, B), np.float32), r"shape \(5, 3\); expected \(5, 3, 4\): numbers"),
        (np.ones((T, B, H), np.int32), r"shape \(5, 3, 4\); expected \(5, 3\): classes"),
    ],
    ids=["numbers", "classes"],
)
def test_targets_of_another_shape_are_named(targets, message):
    with pytest.raises(ValueError, match=message):
        sequence_losses(outputs(), targets)
