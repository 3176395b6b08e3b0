"""`fit` returns to an earlier state after a step that is not finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from many_devices import first_devices
from reproducible import reproducible

import lstm_optax as lo
from lstm_optax.transforms import ScaleByRateFactorState

OPTIMIZER = optax.chain(lo.sgd(0.1), lo.scale_by_rate_factor())
STEP = lo.make_step(toy.loss, OPTIMIZER)
GUARDED = lo.guard(OPTIMIZER, max_consecutive_errors=2)
GUARDED_STEP = lo.make_step(toy.loss, GUARDED)


class Kept:
    """The states at the records of a run, as a folder of checkpoints keeps them."""

    def __init__(self):
        self.states, self.errors = {}, []

    def keep(self, history, state):
        self.states[int(state.step)] = jax.device_get(state)

    def restore(self, error):
        self.errors.append(error)
        return self.states[max(step for step in self.states if step < error.step)]


def start(optimizer=OPTIMIZER):
    return toy.start(optimizer)[1]


def broken_at(*positions):
    """Return batches with NaN at these positions, and the list of the positions that were read."""
    read = []

    def batches(position):
        read.append(position)
        x, y = toy.batches(position)
        return x, (y * np.nan if position in positions else y)

    return batches, read


def fit_and_rewind(batches, kept, *, step=STEP, state=None, times=3, rate_factor=0.5, **options):
    options = dict(steps=12, eval_every=4, steps_per_dispatch=3) | options
    state = start() if state is None else state
    kept.states.setdefault(0, jax.device_get(state))
    rewind = lo.Rewind(kept.restore, times=times, rate_factor=rate_factor)
    return lo.fit(step, state, batches, rewind=rewind, on_record=kept.keep, **options)


def test_rewound_run_equals_one_by_hand():
    """From the record at step 4, with unread batches, a carry of zeros and half the rate."""
    (batches, read), kept = broken_at(6), Kept()
    result = fit_and_rewind(batches, kept)
    # step 7 failed in the dispatch of the steps 7 and 8; what was read ahead is read again
    assert list(dict.fromkeys(read)) == list(range(16))
    assert [e.step for e in kept.errors] == [7]
    assert [r["step"] for r in result.history] == [4, 8, 12]
    assert [r["rewinds"] for r in result.history] == [0, 1, 0]
    rates = [r["learning_rate"] for r in result.history]
    assert rates == pytest.approx([0.1, 0.05, 0.05], rel=1e-6)
    whole = lo.fit(STEP, start(), toy.batches, steps=4, eval_every=4)
    factor = (whole.state.opt_state[0], ScaleByRateFactorState(jnp.float32(0.5)))
    by_hand = whole.state._replace(
        carry=jnp.zeros(toy.ROWS), position=jnp.int32(8), opt_state=factor
    )
    options = dict(steps=12, eval_every=4, steps_per_dispatch=3)
    expected = lo.fit(STEP, by_hand, toy.batches, history=whole.history, **options)
    chex.assert_trees_all_equal(result.state, expected.state)


@pytest.mark.parametrize("dispatches", range(1, 10))
def test_resumed_rewound_run_equals_unbroken(dispatches):
    """The run is interrupted before, between and after two rewinds."""
    (batches, _), kept = broken_at(6, 9, 16), Kept()
    unbroken = fit_and_rewind(batches, kept)
    assert [r["rewinds"] for r in unbroken.history] == [0, 2, 1]
    stops, kept = iter([False] * dispatches + [True]), Kept()
    first = fit_and_rewind(batches, kept, should_stop=lambda: next(stops))
    saved = jax.tree.map(jnp.asarray, jax.device_get(first.state))
    second = fit_and_rewind(batches, kept, state=saved, history=first.history)
    assert first.reason == "interrupted"
    chex.assert_trees_all_equal(second.state, unbroken.state)
    assert reproducible(second.history) == reproducible(unbroken.history)


def test_run_ends_after_last_rewind():
    (batches, _), kept = broken_at(*range(6, 99)), Kept()
    with pytest.raises(lo.NonFiniteError, match="step 5 is not finite: loss nan"):
        fit_and_rewind(batches, kept, times=2)
    assert [e.step for e in kept.errors] == [7, 5]


def test_each_rewind_lowers_the_rate():
    """Also if the same state is restored twice."""
    (batches, _), kept = broken_at(6, 8), Kept()
    result = fit_and_rewind(batches, kept, rate_factor=0.25)
    assert result.state.opt_state[1].rate_factor == 0.0625
    assert [r["rewinds"] for r in result.history] == [0, 2, 0]


def test_rewind_after_guard_gives_up():
    (batches, _), kept = broken_at(5, 6), Kept()
    state = start(GUARDED)
    result = fit_and_rewind(batches, kept, step=GUARDED_STEP, state=state)
    assert result.reason == "steps" and [e.step for e in kept.errors] == [7]
    assert "too many in a row" in str(kept.errors[0])
    assert [(r["skipped"], r["rewinds"]) for r in result.history] == [(0, 0), (0, 1), (0, 0)]
    (batches, _), kept = broken_at(*range(5, 99)), Kept()
    result = fit_and_rewind(batches, kept, step=GUARDED_STEP, state=start(GUARDED), times=1)
    assert result.reason == "gave_up" and len(kept.errors) == 1


def test_rewind_to_the_state_before_failure():
    batches, _ = broken_at(6)
    rewind = lo.Rewind(lambda error: error.state, times=1)
    result = lo.fit(STEP, start(), batches, steps=12, eval_every=4, rewind=rewind)
    assert [(r["step"], r["rewinds"]) for r in result.history] == [(4, 0), (8, 1), (12, 0)]


def test_rewind_removes_records_after_state():
    (batches, _), kept = broken_at(9), Kept()
    keep = kept.keep
    kept.keep = lambda history, state: keep(history, state) if len(history) == 1 else None
    result = fit_and_rewind(batches, kept)
    assert [(r["step"], r["rewinds"]) for r in result.history] == [(4, 0), (8, 1), (12, 0)]


def test_rewind_resets_bad_carry():
    """A carry that was bad in the restored state would fail again and again."""
    (batches, _), kept = broken_at(), Kept()
    bad = start()._replace(carry=jnp.array([np.nan, 0.0]))
    result = fit_and_rewind(batches, kept, state=bad, times=1)
    assert result.reason == "steps" and result.history[0]["rewinds"] == 1


@pytest.mark.slow
def test_rewind_keeps_the_devices():
    sharding = lo.BatchSharding(devices=first_devices(2))
    (batches, _), kept = broken_at(6), Kept()
    result = fit_and_rewind(batches, kept, sharding=sharding)
    for leaf in jax.tree.leaves(result.state):
        assert len(leaf.sharding.device_set) == 2


@pytest.mark.parametrize(
    "restored, message",
    [
        (lambda state: 3, "the restored state is of type int; expected a TrainState"),
        (lambda state: state._replace(carry=()), "the restored state has nothing at .carry, exp"),
        (
            lambda state: state._replace(step=np.int32(7)),
            "restore returned a state after step 7, but step 7 failed: return one from before",
        ),
    ],
)
def test_wrong_restored_state_is_refused(restored, message):
    batches, _ = broken_at(6)
    rewind = lo.Rewind(lambda error: restored(jax.device_get(error.state)))
    with pytest.raises(ValueError, match=message):
        lo.fit(STEP, start(), batches, steps=12, rewind=rewind)


def test_rewind_needs_a_rate_factor():
    rewind = lo.Rewind(lambda error: error.state)
    with pytest.raises(ValueError, match=r"use optax.chain\(optimizer, scale_by_rate_factor\(\)\)"):
        lo.fit(toy.STEP, toy.start()[1], toy.batches, steps=4, rewind=rewind)
    (batches, _), kept = broken_at(2), Kept()
    state = toy.start()[1]
    result = fit_and_rewind(batches, kept, step=toy.STEP, state=state, rate_factor=1)
    assert result.history[0]["rewinds"] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(restore=3), "restore is of type int; expected a function error → state"),
        (dict(times=0), "times is 0, but must be a whole number of at least 1"),
        (dict(rate_factor=0.0), "rate_factor is 0.0, but must be a number in"),
        (dict(rate_factor=2), "rate_factor is 2, but must be a number in"),
    ],
)
def test_rewind_refuses_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        lo.Rewind(**{"restore": lambda error: error.state} | arguments)


def test_fit_refuses_other_rewinds():
    with pytest.raises(ValueError, match="rewind is of type int; expected a Rewind, or None"):
        lo.fit(STEP, start(), toy.batches, steps=4, rewind=3)
