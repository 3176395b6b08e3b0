"""`make_evaluate`: the carry runs through all batches, and each target has the same weight."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import lstm_optax as lo


def measure(params, carry, batch):
    return (params * batch.sum() + carry, np.int32(batch.size)), carry + 1.0


def test_evaluate_carries_state_and_counts_targets():
    evaluate = lo.make_evaluate(measure, np.float32(10), [np.ones(3, np.float32)] * 2)
    assert evaluate(2.0) == pytest.approx((6 + 10 + 6 + 11) / 6)


def test_batches_are_weighted_by_targets():
    sizes = (3, 3, 5, 3, 1)
    evaluate = lo.make_evaluate(
        chex.assert_max_traces(measure, n=3),
        np.float32(10),
        [np.full(n, n, np.float32) for n in sizes],
    )
    expected = sum(2 * n * n + 10 + i for i, n in enumerate(sizes)) / sum(sizes)
    assert evaluate(2.0) == pytest.approx(expected, rel=1e-6)


def test_target_weights_may_be_fractions():
    evaluate = lo.make_evaluate(
        lambda params, carry, batch: ((jnp.sum(params * batch), jnp.sum(batch)), carry),
        (),
        [np.full(3, 0.5, np.float32)] * 3,
    )
    assert evaluate(2.0) == pytest.approx(2.0)


def test_dictionary_of_metrics_has_all_means():
    def several(params, carry, batch):
        hits = jnp.sum(batch > params)
        return {"loss": (jnp.sum(batch), batch.size), "last": (hits, 1)}, carry

    evaluate = lo.make_evaluate(several, (), [np.arange(3.0), np.arange(5.0)])
    assert evaluate(1.5) == {"loss": 13 / 8, "last": 4 / 2}


def test_totals_are_in_double_precision():
    ones = np.full(5_000, 0.1, np.float32)
    evaluate = lo.make_evaluate(lambda params, carry, batch: ((batch, 1), carry), (), ones)
    assert evaluate(None) == pytest.approx(np.float32(0.1), rel=1e-12)


@pytest.mark.parametrize(
    "batches, message",
    [
        ([], "batches is empty; expected at least one batch"),
        ([None], "batch 0 is None, which holds no array"),
        ([np.ones(2), "text"], "batch 1 is a tree with str in it"),
    ],
)
def test_make_evaluate_rejects_invalid_batches(batches, message):
    with pytest.raises(ValueError, match=message):
        lo.make_evaluate(measure, np.float32(0), batches)
    with pytest.raises(ValueError, match="measure is of type list; expected a function"):
        lo.make_evaluate([], np.float32(0), [np.ones(2)])


@pytest.mark.parametrize(
    "returned",
    [
        lambda carry: 1.0,
        lambda carry: (1.0, carry),
        lambda carry: (({"loss": 1.0}, 3), carry),
        lambda carry: ({"loss": 1.0}, carry),
        lambda carry: ({}, carry),
        lambda carry: ((jnp.ones(3), 3), carry),
        lambda carry: ((1.0, 3, 4), carry),
    ],
)
def test_evaluate_rejects_invalid_measure(returned):
    evaluate = lo.make_evaluate(lambda p, carry, batch: returned(carry), (), [np.ones(2)])
    with pytest.raises(ValueError, match=r"measure returned .*; expected \(\(sum, number of"):
        evaluate(None)
    with pytest.raises(ValueError, match="measure returned"):  # fit raises it before the first step
        lo.fit(toy.STEP, toy.start()[1], toy.batches, steps=1, evaluate=evaluate)


def test_evaluate_rejects_zero_targets():
    evaluate = lo.make_evaluate(lambda p, carry, batch: ((0.0, 0), carry), (), [np.ones(2)] * 2)
    with pytest.raises(ValueError, match="the batches have 0 targets for 'loss'"):
        evaluate(None)


def test_evaluate_rejects_changed_carry():
    evaluate = lo.make_evaluate(
        lambda p, carry, batch: ((1.0, 1), carry.astype(jnp.float16)),
        np.zeros(2, "f4"),
        [np.ones(2)],
    )
    message = r"the carry of measure has float16\[2\] at its root, expected float32\[2\]"
    with pytest.raises(ValueError, match=message):
        evaluate(None)
