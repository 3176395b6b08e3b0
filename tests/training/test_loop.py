"""`fit`: records, patience, interruption, and resumption equal to the bit."""

import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from compiled import assert_same
from many_devices import needs_devices
from reproducible import reproducible

import lstm_optax as lo

EVALUATE = lo.make_evaluate(toy.measure, np.zeros(toy.ROWS, np.float32), [toy.batches(99)])


def fit_toy(steps=12, state=None, **options):
    options = dict(eval_every=4, steps_per_dispatch=3, evaluate=EVALUATE) | options
    return lo.fit(toy.STEP, state or toy.start()[1], toy.batches, steps=steps, **options)


def test_fit_learns_and_records():
    result = fit_toy(steps=400, eval_every=100)
    assert result.reason == "steps" and int(result.state.step) == 400
    assert [r["step"] for r in result.history] == [100, 200, 300, 400]
    assert result.history[-1]["val_loss"] < 0.2 * result.history[0]["train_loss"]
    seconds = [r["seconds"] for r in result.history]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_speed_leaves_out_compilation_and_records(monkeypatch):
    """A clock that only the reading of batches, the evaluation and `on_record` advance."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def spend(seconds, value):
        now[0] += seconds
        return value

    result = lo.fit(
        toy.STEP,
        toy.start()[1],
        lambda position: spend(0.5, toy.batches(position)),
        steps=10,
        eval_every=4,
        steps_per_dispatch=3,
        evaluate=lambda params: spend(100.0, 1.0),
        on_record=lambda history, state: spend(100.0, None),
    )
    # Dispatches of 3, 1; 2, 2; 1 and 1 steps; the first one compiles. During each, the batches of
    # the next one are read: 2 for the second, then 2 and 1, and 1 and 0.
    assert [record["steps_per_second"] for record in result.history] == [1 / 1, 4 / 1.5, 2 / 0.5]
    assert [record["seconds"] for record in result.history] == [103.0, 304.5, 505.0]
    once = fit_toy(steps=3, eval_every=3)
    assert once.history[0]["steps_per_second"] is None


def test_train_loss_is_interval_mean():
    expected, state = [], toy.start()[1]
    for position in range(8):
        state, metrics = toy.STEP(state, toy.batches(position))
        expected.append((float(metrics.loss), float(metrics.grad_norm)))
    for record, interval in zip(
        fit_toy(steps=8).history, (expected[:4], expected[4:]), strict=True
    ):
        means = (record["train_loss"], record["grad_norm"])
        assert means == pytest.approx(np.mean(interval, 0), rel=1e-5)


def test_last_record_is_at_last_step():
    assert [r["step"] for r in fit_toy(steps=10).history] == [4, 8, 10]
    assert fit_toy(steps=2, evaluate=None).history[0]["val_loss"] is None


def test_on_progress_is_called_after_each_dispatch():
    steps = []
    fit_toy(on_progress=lambda step, loss: steps.append(step))
    assert steps == [3, 4, 6, 8, 9, 12]  # multiples of 3 and, for the records, of 4


def test_patience_ends_run():
    """A rising loss ends the run `patience` evaluations after the best."""
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 0.0])
    result = fit_toy(steps=400, evaluate=lambda params: next(losses), patience=3)
    assert result.reason == "patience"
    assert [r["val_loss"] for r in result.history] == [3.0, 2.0, 2.5, 2.0, 2.1]
    assert lo.best_record(result.history)["step"] == 8
    nan = iter([float("nan"), 2.0, float("nan"), float("nan")])
    result = fit_toy(steps=400, evaluate=lambda params: next(nan), patience=2)
    assert [r["step"] for r in result.history] == [4, 8, 12, 16]
    assert lo.best_record([]) is None
    assert lo.best_record([{"val_loss": None}, {"val_loss": 0.0}, {}])["val_loss"] == 0.0


@pytest.mark.parametrize("dispatches", [1, 2, 4])
def test_resumed_run_equals_uninterrupted_run(dispatches):
    """The run is interrupted at a record and in the middle of an interval."""
    uninterrupted = fit_toy()
    stops = iter([False] * dispatches + [True])
    first = fit_toy(should_stop=lambda: next(stops))
    assert first.reason == "interrupted" and 0 < int(first.state.step) < 12
    second = fit_toy(state=first.state, history=first.history)
    chex.assert_trees_all_equal(second.state, uninterrupted.state)
    assert reproducible(second.history) == reproducible(uninterrupted.history)


def test_checkpoint_between_records_resumes_exactly():
    saved, calls = {}, []

    def keep(history, state):
        calls.append(("checkpoint", int(state.step)))
        saved[int(state.step)] = jax.device_get(state), list(history)

    options = dict(
        steps=20,
        checkpoint_every=5,
        on_checkpoint=keep,
        on_record=lambda history, state: calls.append(("record", int(state.step))),
    )
    whole = fit_toy(**options)
    chex.assert_trees_all_equal(whole.state, fit_toy(steps=20).state)
    steps = [step for kind, step in calls if kind == "checkpoint"]
    assert steps == [5, 10, 15, 20] and calls[-2:] == [("record", 20), ("checkpoint", 20)]
    for step in steps:
        state, history = saved[step]
        assert len(history) == step // 4
        resumed = fit_toy(state=jax.device_put(state), history=history, **options)
        chex.assert_trees_all_equal(resumed.state, whole.state)
        assert reproducible(resumed.history) == reproducible(whole.history)


def test_checkpoint_has_changed_state():
    seen = []
    fit_toy(
        steps=4,
        on_record=lambda history, state: state._replace(position=state.position + 5),
        checkpoint_every=2,
        on_checkpoint=lambda history, state: seen.append(int(state.position)),
    )
    assert seen == [2, 9]


@pytest.mark.parametrize("given", [{"checkpoint_every": 3}, {"on_checkpoint": print}])
def test_fit_rejects_half_of_checkpoint_arguments(given):
    with pytest.raises(ValueError, match="checkpoint_every and on_checkpoint need each other"):
        fit_toy(**given)


def test_nonfinite_step_raises_with_its_number():
    def broken(position):
        x, y = toy.batches(position)
        return x, (y * np.inf if position == 4 else y)

    recorded = []
    with pytest.raises(lo.NonFiniteError, match=r"step 5 is not finite: loss inf") as caught:
        lo.fit(
            toy.STEP,
            toy.start()[1],
            broken,
            steps=12,
            eval_every=4,
            on_record=lambda history, state: recorded.append(int(state.step)),
        )
    assert caught.value.step == 5 and caught.value.leaf in ("leak", "gain")
    assert recorded == [4]
    chex.assert_trees_all_equal(caught.value.state, fit_toy(steps=4, evaluate=None).state)


def test_fit_ends_when_guard_gives_up():
    def broken(position):
        x, y = toy.batches(position)
        return x, (y * np.nan if position == 1 or position >= 6 else y)

    optimizer = lo.guard(toy.OPTIMIZER, max_consecutive_errors=4)
    step, state = toy.start(optimizer)
    result = lo.fit(step, state, broken, steps=40, eval_every=4, steps_per_dispatch=3)
    assert result.reason == "gave_up" and int(result.state.step) == 10
    assert result.detail.startswith("step 10 was skipped, too many in a row: loss nan")
    assert "in leak" in result.detail or "in gain" in result.detail
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(result.state.params))
    assert [(r["step"], r["skipped"]) for r in result.history] == [(4, 1), (8, 2)]
    assert all(np.isfinite(r["train_loss"]) and r["clipped"] == 0 for r in result.history)


def test_interval_of_skipped_steps_has_no_mean():
    def broken(position):
        x, y = toy.batches(position)
        return x, y * (np.nan if position >= 4 else 1)

    step, state = toy.start(lo.guard(toy.OPTIMIZER))
    history = lo.fit(step, state, broken, steps=8, eval_every=4).history
    assert np.isnan(history[1]["train_loss"]) and history[1]["skipped"] == 4


def test_share_of_clipped_steps_is_recorded():
    optimizer = optax.chain(lo.clip_by_norm_quantile(0.5, window=8), lo.sgd(0.01))
    step, state = toy.start(optimizer)
    history = lo.fit(step, state, toy.batches, steps=40, eval_every=20).history
    clips = sum(20 * r["clipped"] for r in history)
    assert 5 < clips < 35 and clips == pytest.approx(round(clips))


def rising_loss(params) -> float:
    """Return a loss that rises during training, so that a trigger fires."""
    return -EVALUATE(params)


def fit_and_keep(optimizer, evaluate, **options):
    """Return the result of a run, the evaluated parameters, and the states passed to on_record."""
    evaluated, passed = [], []

    def evaluate_and_keep(params):
        evaluated.append(jax.device_get(params))
        return evaluate(params)

    def keep(history, state):
        passed.append(jax.device_get((state.params, state.opt_state)))

    step, state = toy.start(optimizer)
    options = dict(steps=16, eval_every=4, steps_per_dispatch=3) | options
    result = lo.fit(step, state, toy.batches, evaluate=evaluate_and_keep, on_record=keep, **options)
    return result, evaluated, passed


@pytest.mark.parametrize(
    "optimizer, since",
    [
        (lo.polyak_average(toy.OPTIMIZER), 4),
        (lo.guard(lo.ema_average(toy.OPTIMIZER, 0.9)), 4),
        (optax.chain(lo.triggered_average(toy.OPTIMIZER, nonmonotone=1)), 16),
        (optax.contrib.schedule_free_adamw(0.01), 4),
        (toy.OPTIMIZER, 20),
    ],
    ids=["polyak", "ema in a guard", "triggered in a chain", "schedule-free", "none"],
)
def test_average_is_evaluated_and_recorded(optimizer, since):
    result, evaluated, passed = fit_and_keep(optimizer, rising_loss)
    for record, params, (last, opt_state) in zip(result.history, evaluated, passed, strict=True):
        assert_same(params, jax.device_get(lo.eval_params(opt_state, last)))
        assert record["averaging"] == (record["step"] >= since)
        differs = any(not np.array_equal(params[n], last[n]) for n in last)
        assert differs == record["averaging"]
        assert record["val_loss"] == -EVALUATE(params)


def test_trigger_receives_losses_before_on_record():
    _, _, passed = fit_and_keep(lo.triggered_average(toy.OPTIMIZER, nonmonotone=1), rising_loss)
    states = [opt_state for _, opt_state in passed]
    assert [int(s.results) for s in states] == [1, 2, 3, 4]
    assert [bool(s.triggered) for s in states] == [False, False, True, True]
    assert [int(s.average.count) for s in states] == [0, 0, 0, 4]


@pytest.mark.parametrize("dispatches", [1, 3, 6, 7])
def test_resumed_triggered_run_equals_uninterrupted(dispatches):
    """The run is interrupted before, at and after the record whose loss fires the trigger."""
    optimizer = lo.guard(lo.triggered_average(toy.OPTIMIZER, nonmonotone=1))
    step, state = toy.start(optimizer)
    options = dict(steps=16, eval_every=4, steps_per_dispatch=3, evaluate=rising_loss)
    uninterrupted = lo.fit(step, jax.tree.map(np.copy, state), toy.batches, **options)
    stops = iter([False] * dispatches + [True])
    first = lo.fit(step, state, toy.batches, should_stop=lambda: next(stops), **options)
    second = lo.fit(step, first.state, toy.batches, history=first.history, **options)
    assert first.reason == "interrupted" and second.history[-1]["averaging"]
    chex.assert_trees_all_equal(second.state, uninterrupted.state)
    assert reproducible(second.history) == reproducible(uninterrupted.history)


def test_trigger_gets_no_loss_without_evaluate():
    step, state = toy.start(lo.triggered_average(toy.OPTIMIZER))
    result = lo.fit(step, state, toy.batches, steps=4, eval_every=2)
    assert int(result.state.opt_state.results) == 0
    assert [r["averaging"] for r in result.history] == [False, False]


def test_fit_rejects_two_averages_at_once():
    steps = []
    with pytest.raises(ValueError, match="has 2 averages"):
        step, state = toy.start(lo.polyak_average(lo.polyak_average(toy.OPTIMIZER)))
        lo.fit(
            step,
            state,
            toy.batches,
            steps=4,
            evaluate=EVALUATE,
            on_progress=lambda step, loss: steps.append(step),
        )
    assert not steps


@pytest.mark.parametrize(
    "name", ["eval_every", "steps_per_dispatch", "patience", "checkpoint_every"]
)
def test_fit_rejects_counts_below_one(name):
    more = {"on_checkpoint": print} if name == "checkpoint_every" else {}
    with pytest.raises(ValueError, match=f"{name} is 0, but must be a whole number of at least 1"):
        fit_toy(**{name: 0}, **more)


@pytest.mark.parametrize("name", ["steps", "eval_every", "steps_per_dispatch", "patience"])
@pytest.mark.parametrize("value", [2.5, 4.0, True, "4", np.float32(3), float("nan"), [4]])
def test_fit_rejects_counts_of_other_types(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*, but must be a whole number"):
        fit_toy(**{name: value})


def test_fit_rejects_patience_without_evaluate():
    with pytest.raises(ValueError, match="patience is 3, but evaluate is None"):
        fit_toy(patience=3, evaluate=None)


def test_fit_accepts_numpy_integers():
    assert [r["step"] for r in fit_toy(steps=np.int64(4), eval_every=np.int32(2)).history] == [2, 4]
    with pytest.raises(ValueError, match="steps is -1, but must be a whole number of at least 0"):
        fit_toy(steps=-1)


@pytest.mark.parametrize("size, every, read", [(8, 1, 2), (3, 4, 4), (1, 5, 2), (8, 100, 10)])
def test_fit_reads_one_dispatch_ahead(size, every, read):
    """Each position is read once, in order, and none after the last step.

    Args:
      read: the number of batches that are read when the first dispatch has ended.
    """
    positions, seen, stops = [], [], iter([False, True] + 99 * [False])

    def batches(position):
        positions.append(position)
        return toy.batches(position)

    options = dict(
        eval_every=every,
        steps_per_dispatch=size,
        should_stop=lambda: next(stops),
        on_progress=lambda step, loss: seen.append((step, len(positions))),
    )
    first = lo.fit(toy.STEP, toy.start()[1], batches, steps=10, **options)
    start = int(first.state.step)
    assert seen == [(start, read)] and positions == list(range(read))
    positions.clear()
    lo.fit(toy.STEP, first.state, batches, steps=10, **options)
    assert positions == list(range(start, 10)) and seen[-1] == (10, 10 - start)


def test_fit_equals_loop_that_reads_nothing_ahead():
    state, losses = toy.start()[1], []
    for start in (0, 3, 6, 9):
        stacked = jax.tree.map(lambda *xs: np.stack(xs), *map(toy.batches, range(start, start + 3)))
        state, metrics = lo.run_steps(toy.STEP, state, stacked, 3)
        losses.append(float(metrics.loss))
    found = []
    result = fit_toy(eval_every=12, on_progress=lambda step, loss: found.append(loss))
    assert found == losses
    chex.assert_trees_all_equal(result.state.params, state.params)


def test_error_of_batches_comes_after_records():
    """A batch that is read ahead fails; what was trained before it is recorded first."""

    def broken(position):
        return toy.batches(position) if position < 4 else {}["data"]

    steps, records = [], []
    with pytest.raises(KeyError, match="data") as caught:
        lo.fit(
            toy.STEP,
            toy.start()[1],
            broken,
            steps=12,
            eval_every=4,
            on_progress=lambda step, loss: steps.append(step),
            on_record=lambda history, state: records.append(int(state.step)),
        )
    assert steps == records == [4]
    assert caught.traceback[-1].name == "broken"


WRONG_BATCHES = {
    "none": (None, r"batches\(2\) is None, which holds no array; expected a tree of arrays"),
    "text": (("a", "b"), r"batches\(2\) is a tree with str in it; expected a tree of arrays"),
    "objects": ((object(), 1), r"batches\(2\) is a tree with object in it"),
    "shape": (
        (np.zeros((3, 2), "f4"),) * 2,
        r"batches\(2\) has float32\[3,2\] at \[0\], expected ",
    ),
    "dtype": ((np.zeros((4, 2)),) * 2, r"float64\[4,2\] at \[0\], expected float32\[4,2\]"),
    "tree": ([np.zeros((4, 2), "f4")] * 2, r"batches\(2\) has the structure .*, expected "),
    "fewer": ((np.zeros((4, 2), "f4"),), r"nothing at \[1\], expected float32\[4,2\]"),
}


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("name", WRONG_BATCHES)
def test_fit_rejects_batches_that_differ(name, size):
    """The batches differ inside a dispatch, or between two dispatches."""
    wrong, message = WRONG_BATCHES[name]
    with pytest.raises(ValueError, match=message):
        lo.fit(
            toy.STEP,
            toy.start()[1],
            lambda position: wrong if position == 2 else toy.batches(position),
            steps=4,
            steps_per_dispatch=size,
        )


@pytest.mark.parametrize(
    "name",
    "step evaluate on_progress on_record should_stop state sharding".split(),
)
def test_fit_rejects_arguments_of_other_types(name):
    valid = dict(step=toy.STEP, state=toy.start()[1], batches=toy.batches, evaluate=EVALUATE)
    with pytest.raises(ValueError, match=f"{name} is of type list; expected "):
        lo.fit(steps=4, **valid | {name: [toy.batches(0)]})


def test_bfloat16_evaluation_is_recorded():
    result = fit_toy(evaluate=lambda params: {"loss": jnp.bfloat16(2), "hits": np.int8(3)}, steps=4)
    assert result.history[-1]["val_loss"] == 2.0 and result.history[-1]["val_hits"] == 3.0
    with pytest.raises(ValueError, match="evaluate returned 1j for 'loss'; expected a number"):
        fit_toy(evaluate=lambda params: 1j, steps=4)
    with pytest.raises(ValueError, match="the evaluation returns 1, 2; name the one"):
        fit_toy(evaluate=lambda params: {1: 1.0, 2: 2.0}, steps=4)


@pytest.mark.parametrize("value", [10**30, np.ones(2, np.longdouble)])
def test_fit_rejects_dtypes_outside_jax(value):
    with pytest.raises(ValueError, match=r"batches\(0\) is a tree with (int|ndarray) in it"):
        lo.fit(toy.STEP, toy.start()[1], lambda position: value, steps=4)


def fit_accuracies(values, **options):
    """Run with an evaluation that returns the given accuracies, and a falling loss."""
    accuracies, losses = iter(values), iter(range(99, 0, -1))
    return fit_toy(
        evaluate=lambda params: {"loss": next(losses), "accuracy": next(accuracies)},
        steps=400,
        **options,
    )


def test_all_metrics_are_recorded_one_decides():
    result = fit_accuracies(
        [0.1, 0.5, 0.2, 0.3], metric="accuracy", larger_is_better=True, patience=2
    )
    assert result.reason == "patience"
    assert [r["val_accuracy"] for r in result.history] == [0.1, 0.5, 0.2, 0.3]
    assert [r["val_loss"] for r in result.history] == [99.0, 98.0, 97.0, 96.0]
    assert lo.best_record(result.history, "accuracy", larger_is_better=True)["step"] == 8
    assert lo.best_record(result.history, "accuracy")["step"] == 4
    assert lo.best_record(result.history)["step"] == 16
    assert lo.best_record(result.history, "other") is None
    down = fit_accuracies([0.5, 0.1, 0.2, 0.3], metric="accuracy", patience=2)
    assert len(down.history) == 4


@pytest.mark.parametrize("larger", [False, True])
def test_trigger_follows_deciding_metric(larger):
    values = iter([1.0, 2.0, 3.0, 4.0])
    step, state = toy.start(lo.triggered_average(toy.OPTIMIZER, nonmonotone=1))
    result = lo.fit(
        step,
        state,
        toy.batches,
        steps=8,
        eval_every=2,
        evaluate=lambda params: {"score": next(values)},
        metric="score",
        larger_is_better=larger,
    )
    assert bool(result.state.opt_state.triggered) == (not larger)


def test_fit_rejects_unknown_metric_at_once():
    evaluate = lo.make_evaluate(
        lambda params, carry, batch: ({"error": (0.0, 1), "hits": (1.0, 1)}, carry),
        (),
        [np.ones(2)],
    )
    steps = []
    with pytest.raises(
        ValueError, match="metric is 'loss', but the evaluation returns error, hits"
    ):
        fit_toy(evaluate=evaluate, on_progress=lambda step, loss: steps.append(step))
    assert not steps
    with pytest.raises(ValueError, match="metric is 'f1', but the evaluation returns loss"):
        fit_toy(metric="f1")
    with pytest.raises(ValueError, match="evaluate returned None for 'loss'; expected a number"):
        fit_toy(evaluate=lambda params: None)


def test_fit_trains_lstm_with_truncated_bptt():
    """End to end with an LSTM, which must remember the character before the last one."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    model = lo.LanguageModel(3, lo.LSTM(4, 8, rngs=rngs), rngs=rngs)
    graphdef, params = nnx.split(model)
    codes = np.random.default_rng(0).integers(0, 3, 600).astype(np.int32)
    codes[2:] = codes[:-2]  # period 2, so the character before the last one predicts the next
    windows = lo.data.Windows.of(np.tile(codes[:2], 300), 2, 8)

    def loss(params, carry, batch, key):
        logits, carry = nnx.merge(graphdef, params)(batch.inputs, carry, resets=batch.resets)
        total, count = lo.token_losses(logits, batch.targets)
        return total / count, carry

    optimizer = lo.nadam(0.05)
    state = lo.init_state(params, optimizer, model.lstm.initial_carry(2), jax.random.key(0))
    result = lo.fit(lo.make_step(loss, optimizer), state, windows, steps=60, eval_every=20)
    assert result.history[-1]["train_loss"] < 0.1 < result.history[0]["train_loss"]


def halving_rate(count):
    return 0.1 * 0.5**count


@pytest.mark.parametrize(
    "optimizer, rates",
    [
        (lo.sgd(0.001), [0.001, 0.001]),
        (lo.guard(lo.polyak_average(lo.nadam(halving_rate))), [0.05, 0.0125]),
        (optax.inject_hyperparams(lo.rmsprop)(learning_rate=0.01), [0.01, 0.01]),
        (optax.inject_hyperparams(optax.adam)(learning_rate=halving_rate), [0.05, 0.0125]),
        (optax.sgd(0.1), [None, None]),
        (
            optax.partition({"a": lo.sgd(0.1), "b": lo.sgd(0.2)}, {"leak": "a", "gain": "b"}),
            [[0.1, 0.2]] * 2,
        ),
    ],
    ids=["number", "schedule", "injected", "injected optax", "optax", "two"],
)
def test_learning_rate_is_recorded(optimizer, rates):
    step, state = toy.start(optimizer)
    history = lo.fit(step, state, toy.batches, steps=4, eval_every=2).history
    assert [record["learning_rate"] for record in history] == rates


def test_skipped_step_does_not_advance_schedule():
    def broken(position):
        x, y = toy.batches(position)
        return x, y * (np.nan if position in (1, 2) else 1)

    step, state = toy.start(lo.guard(lo.sgd(halving_rate)))
    history = lo.fit(step, state, broken, steps=4, eval_every=2).history
    assert [record["learning_rate"] for record in history] == [0.1, 0.05]


def lower_learning_rate(history, state):
    """Divide the injected learning rate by 10 at every record."""
    hyperparams = state.opt_state.hyperparams
    new = {"learning_rate": hyperparams["learning_rate"] / 10}
    return state._replace(opt_state=state.opt_state._replace(hyperparams=hyperparams | new))


@pytest.mark.parametrize(
    "sharding",
    [
        None,
        pytest.param(
            lo.BatchSharding(devices=jax.devices()[:2]), marks=[pytest.mark.slow, needs_devices(2)]
        ),
    ],
)
def test_on_record_changes_learning_rate(sharding, tmp_path):
    """The rate changes at the next step without a new program, and a resumed run is equal."""
    traces = []

    def loss(params, carry, batch, key):
        traces.append(1)
        return toy.loss(params, carry, batch, key)

    optimizer = optax.inject_hyperparams(lo.sgd)(learning_rate=0.1)
    step = lo.make_step(loss, optimizer)
    start = lambda: toy.start(optimizer)[1]  # noqa: E731
    options = dict(eval_every=2, sharding=sharding, on_record=lower_learning_rate)
    uninterrupted = lo.fit(step, start(), toy.batches, steps=6, **options)
    rates = [record["learning_rate"] for record in uninterrupted.history]
    assert rates == pytest.approx([0.1, 0.01, 0.001], rel=1e-6)
    assert len(traces) == 2 or sharding  # one for the shapes, one for the program

    other = lo.make_step(toy.loss, lo.sgd(lambda count: 0.1 * 0.1 ** (count // 2)))
    scheduled = lo.fit(
        other, toy.start(lo.sgd(halving_rate))[1], toy.batches, steps=6, sharding=sharding
    )
    chex.assert_trees_all_close(
        jax.device_get(uninterrupted.state.params),
        jax.device_get(scheduled.state.params),
        rtol=1e-5,
    )
    first = lo.fit(step, start(), toy.batches, steps=4, **options)
    checkpoints = lo.Checkpoints(tmp_path)
    checkpoints.save(4, first.state)
    _, state, _ = checkpoints.restore(sharding.state(start()) if sharding else start())
    second = lo.fit(step, state, toy.batches, steps=6, history=first.history, **options)
    chex.assert_trees_all_equal(second.state, uninterrupted.state)


def test_on_record_returns_numbers_and_shared_arrays():
    optimizer = lo.polyak_average(optax.inject_hyperparams(lo.sgd)(learning_rate=0.1))

    def restart(history, state):
        inner = state.opt_state.inner._replace(hyperparams={"learning_rate": 0.5})
        opt_state = state.opt_state._replace(inner=inner)
        params = lo.eval_params(opt_state, state.params)
        return state._replace(params=params, opt_state=opt_state, position=state.position + 10)

    positions = []

    def batches(position):
        positions.append(position)
        return toy.batches(position)

    step, state = toy.start(optimizer)
    result = lo.fit(step, state, batches, steps=4, eval_every=2, on_record=restart)
    assert [record["learning_rate"] for record in result.history] == [0.1, 0.5]
    assert positions == [0, 1, 2, 3, 12, 13]  # 2 and 3 were read ahead


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: 3, "on_record returned int; expected a TrainState, or None"),
        (lambda state: state._replace(step=state.step + 1), "changed the step from 4 to 5"),
        (lambda state: state._replace(carry=()), "has nothing at .carry, expected float32"),
        (lambda state: state._replace(carry=np.zeros(3)), r"has float32\[3\] at .carry, expected"),
    ],
)
def test_on_record_rejects_other_changes(change, message):
    with pytest.raises(ValueError, match=message):
        fit_toy(on_record=lambda history, state: change(state))
