"""The queue of trials: divergence, free slots, dispatches, pauses, times."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from many_devices import first_devices
from quadratic import (
    assert_same_rows,
    batches,
    evaluate,
    init,
    make_task,
    rate_trials,
    run_trials,
    without_seconds,
)

import lstm_optax as lo
from lstm_optax.records import as_json
from lstm_optax.studies import StudyError
from lstm_optax.studies import trial_runner as module
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial_program import TrialProgram
from lstm_optax.studies.trial_runner import TrialRunner

LARGE = 1e12  # the loss grows by 1e24 in each step, and overflows in the second or third


def first_bad_step(rate, seed=1000):
    """Return the step of `sgd` whose loss or gradient is not finite, by a Python loop."""
    optimizer, task = lo.sgd(rate), make_task()
    init_key, step_key = jax.random.split(jax.random.key(seed))
    state = lo.init_state(task.init(init_key), optimizer, task.initial_carry(), step_key)
    step = jax.jit(lo.make_step(task.loss, optimizer))
    for number in range(1, 13):
        state, metrics = step(state, batches(number - 1, seed))
        if not (np.isfinite(metrics.loss) and np.isfinite(metrics.grad_norm)):
            return number
    return None


def test_divergence_is_not_marked_or_costs_steps():
    bad = first_bad_step(LARGE)
    assert bad in (2, 3), "the middle of the first interval"
    rates = (0.1, LARGE, 0.2, 0.3, 0.05)
    trials = rate_trials(rates)
    records, _ = run_trials(lo.sgd, trials, layout="map", devices=first_devices(2))
    diverged = records[trials[1].name]
    assert diverged.diverged
    assert (diverged.end["step"], diverged.end["status"]) == (bad, "diverged")
    (row,) = diverged.evaluations
    assert row["step"] == bad and row["validation"] is None and row["loss"] is None
    alone, _ = run_trials(lo.sgd, trials[2:3])
    assert_same_rows(records[trials[2].name].evaluations, alone[trials[2].name].evaluations)
    for trial in (trials[0], *trials[2:]):
        assert records[trial.name].end["status"] == "finished"
        assert [row["step"] for row in records[trial.name].evaluations] == [4, 8, 12]


@pytest.mark.parametrize("layout", ["map", "vmap"])
def test_metric_without_a_value_is_finished(layout):
    start = evaluate(init(jax.random.split(jax.random.key(1000))[0]))["validation"]

    def spoiled(params):
        found = evaluate(params)
        bad = jnp.abs(found["validation"] - start) > 0.1  # a small rate does not move so far
        return found | {"validation": jnp.where(bad, jnp.nan, found["validation"])}

    trials = rate_trials((0.2, 1e-4))
    records, _ = run_trials(lo.sgd, trials, make_task(evaluate=spoiled), layout=layout)
    first, second = (records[trial.name] for trial in trials)
    assert first.diverged and first.end["step"] == first.evaluations[-1]["step"]
    assert first.evaluations[-1]["validation"] is None
    assert first.evaluations[-1]["loss"] is not None
    assert second.end["status"] == "finished"


def test_free_slot_stays_empty():
    """With two slots and a first trial that diverges at once, the others take its place."""
    trials = rate_trials((LARGE, 0.1, 0.2, 0.3))
    order = []
    log = StudyLog(None, "sweep", {}, {})
    program = TrialProgram(make_task(), lo.sgd, trials=4, devices=first_devices(2), layout="map")
    runner = TrialRunner(
        program,
        log,
        steps=12,
        eval_every=4,
        on_evaluation=lambda trial, row: order.append((trial.hyper["learning_rate"], row["step"])),
    )
    dispatches = []
    advance = program.advance

    def count(states, hyper, batches, counts, evaluate):
        dispatches.append(counts)
        return advance(states, hyper, batches, counts, evaluate)

    program.advance = count
    runner.run(trials)
    records = log.read().trials
    assert [row for row in order if row[0] == 0.2] == [(0.2, 4), (0.2, 8), (0.2, 12)]
    assert dispatches == [[0, 0], *[[4, 4]] * 4, *[[0, 4]] * 2]
    assert all(record.end for record in records.values())


@pytest.mark.parametrize("size", [3 * 2 * 4 * 2, pytest.param(1, marks=pytest.mark.slow)])
def test_small_dispatches_change_records(size, monkeypatch):
    trials = rate_trials((0.1, LARGE, 0.2))
    task = make_task()
    options = dict(layout="map", devices=jax.devices()[:1])
    whole, _ = run_trials(lo.adam, trials, task, **options)
    monkeypatch.setattr(module, "BATCH_BYTES", size)
    parts, runner = run_trials(lo.adam, trials, task, **options)
    assert runner._chunk == (1 if size == 1 else 2) and runner.program.traces == 1
    for name, record in whole.items():
        assert without_seconds(parts[name].evaluations) == without_seconds(record.evaluations)
        assert without_seconds(parts[name].end) == without_seconds(record.end)


@pytest.mark.slow
def test_divergence_in_small_dispatches_differs(monkeypatch):
    (trial,) = rate_trials((LARGE,))
    whole, _ = run_trials(lo.sgd, [trial])
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    parts, _ = run_trials(lo.sgd, [trial])
    for records in (whole, parts):
        assert records[trial.name].end["step"] == first_bad_step(LARGE)
    assert without_seconds(parts[trial.name].evaluations) == without_seconds(
        whole[trial.name].evaluations
    )


@pytest.mark.parametrize("layout", ["map", "vmap"])
def test_more_slots_than_trials_fail(layout):
    program = TrialProgram(make_task(), lo.sgd, trials=8, layout=layout)
    assert program.slots == 8
    log = StudyLog(None, "sweep", {}, {})
    runner = TrialRunner(program, log, steps=12, eval_every=4)
    runner.run(rate_trials((0.1, 0.2, 0.3)))
    assert [t.end["status"] for t in log.read().trials.values()] == 3 * ["finished"]
    runner.run([])
    assert len(log.read().trials) == 3


@pytest.mark.parametrize("layout", ["map", pytest.param("vmap", marks=pytest.mark.slow)])
def test_pause_changes_a_trial(layout):
    trials = rate_trials((0.1, LARGE, 0.2, 0.3, 0.05))
    options = dict(layout=layout, devices=first_devices(2))
    whole, _ = run_trials(lo.adam, trials, **options)
    _, runner = run_trials(lo.adam, trials, until=4, **options)
    paused = runner.log.read().trials
    assert paused[trials[0].name].end is None
    assert [row["step"] for row in paused[trials[0].name].evaluations] == [4]
    assert set(runner._paused) == {name for name, record in paused.items() if not record.end}
    kept = [trial for trial in trials[::-1] if paused[trial.name].end is None][:3]
    runner.run(kept, until=8)
    assert len(runner._paused) == 3, "the states of stopped trials are dropped"
    runner.run(kept)
    assert runner.program.traces == 1 and not runner._paused
    found = runner.log.read().trials
    for trial in kept:
        assert_same_rows(found[trial.name].evaluations, whole[trial.name].evaluations, rtol=0)
        assert found[trial.name].end["status"] == "finished"


def test_seconds_contain_compilation_or_other_trials(monkeypatch):
    """The clock advances by 1 with each reading: 1 s for the compilation and each dispatch."""
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    trials = rate_trials((0.1, 0.2, 0.3))
    for layout in ("map", "vmap"):
        seconds = []
        program = TrialProgram(
            make_task(), lo.sgd, trials=3, layout=layout, devices=first_devices(2)
        )
        log = StudyLog(None, "sweep", {}, {})
        options = dict(steps=12, eval_every=4, on_compile=seconds.append)
        runner = TrialRunner(program, log, **options)
        runner.run(trials)
        assert seconds == [1.0]
        ends = [record.end["seconds"] for record in log.read().trials.values()]
        if layout == "map":  # two trials on two devices, then one
            assert ends == [3.0, 3.0, 3.0]
        else:  # two stacked on the first device; one on the second, with a free slot
            assert ends == [1.5, 1.5, 1.5]


@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_changing_batches_pass(change):
    def changing(position, seed):
        batch = batches(position, seed)
        if position < 5:
            return batch
        return batch[:2] if change == "shape" else batch.astype(np.float64)

    shown = "float32[2,2]" if change == "shape" else "float64[3,2]"
    with pytest.raises(StudyError) as error:
        run_trials(lo.sgd, rate_trials((0.1,)), make_task(batches=changing))
    assert str(error.value) == (
        f"task quadratic: batches(5, 1000) has {shown} at its root, expected float32[3,2]: "
        "all batches must have the same structure, shapes and dtypes"
    )


@pytest.mark.slow
def test_frozen_trial_receives_batches():
    """A slot that is free, and a trial past its end, ask for no further batch."""
    asked = set()

    def recorded(position, seed):
        asked.add((position, seed))
        return batches(position, seed)

    trials = rate_trials((LARGE, 0.1, 0.2), (1000, 1001))
    options = dict(layout="map", devices=first_devices(4))
    run_trials(lo.sgd, trials, make_task(batches=recorded), **options)
    positions = {position for position, seed in asked if seed != 0}
    assert positions == set(range(12))


def test_skipped_interval_has_a_loss():
    def spoiled(position, seed):
        return batches(position, seed) * np.float32(np.nan if position < 4 else 1)

    def guarded(learning_rate):
        return lo.guard(lo.sgd(learning_rate))

    (trial,) = rate_trials((0.1,))
    records, _ = run_trials(guarded, [trial], make_task(batches=spoiled))
    first, second, _ = records[trial.name].evaluations
    assert first["loss"] is None and first["validation"] is not None
    assert second["loss"] is not None and records[trial.name].end["status"] == "finished"


def test_guard_that_gave_up_is_finished():
    def spoiled(position, seed):
        return batches(position, seed) * np.float32(np.nan if position > 4 else 1)

    def guarded(learning_rate):
        return lo.guard(lo.sgd(learning_rate), max_consecutive_errors=2)

    (trial,) = rate_trials((0.1,))
    records, _ = run_trials(guarded, [trial], make_task(batches=spoiled))
    assert records[trial.name].diverged
    assert 6 <= records[trial.name].end["step"] <= 8


def test_records_hold_other_than_json():
    (trial,) = rate_trials((0.001,))
    _, runner = run_trials(lo.sgd, [trial])
    row = runner.log.read().trials[trial.name].evaluations[0]
    assert row == as_json(row)
    assert row["learning_rate"] == 0.001
    names = {"record", "trial", "step", "seconds", "loss", "grad_norm", "learning_rate"}
    assert set(row) == names | {"validation", "test"}


def test_optimizers_without_one_rate_fail():
    (trial,) = rate_trials((0.001,))
    records, _ = run_trials(optax.sgd, [trial])
    assert records[trial.name].evaluations[0]["learning_rate"] is None
