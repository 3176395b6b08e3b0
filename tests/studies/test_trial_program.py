"""A trial of a program equals the same training by `fit`, alone or next to others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import compilations
from many_devices import first_devices
from quadratic import (
    assert_same_rows,
    batches,
    fit_records,
    make_task,
    rate_trials,
    run_trials,
)

import lstm_optax as lo
from lstm_optax.studies.trial import make_trials
from lstm_optax.studies.trial_program import TrialProgram


def schedule_free(learning_rate):
    return optax.contrib.schedule_free_sgd(learning_rate, b1=0.8)


def triggered(learning_rate):
    return lo.awd_sgd(learning_rate, clip=1e6, nonmonotone=1)


def with_schedule(learning_rate):
    rate = optax.cosine_decay_schedule(learning_rate, 12)
    return optax.chain(lo.clip_by_global_norm(0.5), lo.nadam(rate))


def guarded(learning_rate):
    return lo.guard(lo.momentum_sgd(learning_rate))


def spoiled_batches(position, seed):
    batch = batches(position, seed)
    return batch * np.float32(np.nan) if position in (2, 5) else batch


FACTORIES = {
    "schedule_free": (schedule_free, {}),
    "triggered": (triggered, {"eval_every": 2}),
    "guard": (guarded, {"batches": spoiled_batches}),
    "schedule": (with_schedule, {}),
    "adam": (lo.adam, {}),
    "larger": (triggered, {"larger_is_better": True, "eval_every": 2}),
    "eval_every == steps": (lo.sgd, {"eval_every": 12}),
}
LAYOUTS = {
    "1 device": dict(layout="map", devices=1),
    "2 devices": dict(layout="map", devices=2),
    "stacked": dict(layout="vmap", devices=1),
    "3 devices": dict(layout="map", devices=3),
    "stacked on 2": dict(layout="vmap", devices=2),
}


def slow_after(count, names):
    """Return the names of cases, the later ones marked as slow."""
    mark = pytest.mark.slow
    return [pytest.param(n, marks=mark) if i >= count else n for i, n in enumerate(names)]


def on_devices(layout):
    return layout | {"devices": first_devices(layout["devices"])}


@pytest.mark.parametrize("name", slow_after(1, FACTORIES))
def test_trial_differs_from_fit(name):
    factory, changes = FACTORIES[name]
    task, trials = make_task(**changes), rate_trials((0.1, 0.3), (1000, 1001))
    records, runner = run_trials(factory, trials, task, **on_devices(LAYOUTS["2 devices"]))
    assert runner.program.traces == 1 and runner.program.slots == 2
    trial = trials[3]
    expected = fit_records(factory(0.3), 1001, task)
    assert_same_rows(records[trial.name].evaluations, expected)
    assert records[trial.name].end["status"] == "finished"


@pytest.mark.slow
def test_average_never_started():
    """The case "triggered" tests nothing unless the trigger fires before the last evaluation."""
    (trial,), task = rate_trials((0.3,)), make_task(eval_every=2)
    records, _ = run_trials(triggered, [trial], task)
    plain, _ = run_trials(lo.sgd, [trial], task)
    found, other = (r[trial.name].evaluations[-1]["validation"] for r in (records, plain))
    assert abs(found - other) > 1e-3


@pytest.fixture(scope="module")
def alone():
    trials = rate_trials((0.1, 0.03, 0.3, 0.01))
    with jax.numpy_rank_promotion("raise"):
        return run_trials(lo.nadam, trials, **on_devices(LAYOUTS["1 device"]))[0]


@pytest.mark.parametrize("name", slow_after(1, list(LAYOUTS)[1:]))
def test_layout_changes_a_trial(name, alone):
    trials = rate_trials((0.1, 0.03, 0.3, 0.01))
    records, runner = run_trials(lo.nadam, trials, **on_devices(LAYOUTS[name]))
    assert runner.program.traces == 1
    assert runner.program.slots == min(4, 4 if "stacked" in name else LAYOUTS[name]["devices"])
    assert list(records) == [trial.name for trial in trials]
    for trial in trials:
        assert_same_rows(records[trial.name].evaluations, alone[trial.name].evaluations)


@pytest.mark.slow
def test_neighbours_change_a_trial():
    trials = rate_trials((0.1, 0.03, 1e15, 0.01, 0.2))
    alone, _ = run_trials(lo.adam, trials[:1], layout="map")
    devices = first_devices(2)
    for order in (trials, trials[::-1]):
        records, _ = run_trials(lo.adam, order, layout="map", devices=devices)
        found = records[trials[0].name].evaluations
        assert_same_rows(found, alone[trials[0].name].evaluations, rtol=0)


@pytest.mark.slow
def test_several_traced_numbers_and_a_fixed_one():
    grid = {"learning_rate": (0.1, 0.3), "momentum": (0.5, 0.9), "nesterov": (True,)}
    trials = make_trials("a", grid, (1000,))

    def factory(learning_rate, momentum, nesterov=True):
        return optax.sgd(learning_rate, momentum, nesterov=nesterov)

    records, runner = run_trials(factory, trials)
    assert runner.program.traces == 1
    expected = fit_records(optax.sgd(0.3, 0.5, nesterov=True), 1000)
    assert_same_rows(records[trials[2].name].evaluations, expected)


@pytest.mark.slow
def test_double_precision_is_lost(x64):
    def init(key):
        return {"x": jax.random.normal(key, (2,), jnp.float64)}

    task = make_task(init=init, initial_carry=lambda: jnp.zeros(2, jnp.float64))
    (trial,) = rate_trials((0.1,))
    records, _ = run_trials(lo.sgd, [trial], task)
    row, expected = records[trial.name].evaluations[-1], fit_records(lo.sgd(0.1), 1000, task)[-1]
    np.testing.assert_allclose(row["loss"], expected["loss"], 1e-12)


@pytest.mark.slow
def test_programs_of_equal_shape_compile_once():
    trials = rate_trials((0.1, 0.2, 0.3, 0.4, 0.5))
    with compilations() as names:
        _, runner = run_trials(lo.sgd, trials, layout="map", devices=first_devices(2))
        runner.run(rate_trials((0.7, 0.8, 0.9), (1, 2)))
    assert runner.program.traces == 1
    assert names.count("jit(run)") == 3  # the first states, those of new trials, the steps


def test_state_of_one_slot_is_exchanged():
    program = TrialProgram(make_task(), lo.adam, trials=2, devices=first_devices(2))
    hyper = [{"learning_rate": 0.1}, {"learning_rate": 0.2}]
    states = program.start(None, hyper, [3, 4], [True, True])
    first = program.take(states, 0)
    states = program.put(states, 1, first)
    for a, b in zip(jax.tree.leaves(program.take(states, 1)), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(program.abstract_state()) == jax.tree.structure(first)


def test_unknown_layout_is_accepted():
    with pytest.raises(
        ValueError, match="^layout is 'rows', but must be 'auto' or 'map' or 'vmap'"
    ):
        TrialProgram(make_task(), lo.adam, trials=2, layout="rows")


@pytest.mark.parametrize("layout", slow_after(1, ["map", "vmap"]))
def test_slot_without_steps_changes(layout):
    program = TrialProgram(make_task(), lo.adam, trials=2, layout=layout, devices=jax.devices()[:1])
    if layout == "map":
        program = TrialProgram(make_task(), lo.adam, trials=2, devices=first_devices(2))
    hyper = [{"learning_rate": 0.1}, {"learning_rate": 0.2}]
    states = program.start(None, hyper, [3, 4], [True, True])
    before = program.take(states, 0), program.take(states, 1)
    stacked = [np.stack([batches(0, seed), batches(1, seed)]) for seed in (3, 4)]
    states, results = program.advance(states, hyper, stacked, [0, 2], [True, True])
    results = jax.device_get(results)
    jax.tree.map(np.testing.assert_array_equal, program.take(states, 0), before[0])
    assert np.isnan(results.metrics["validation"][0]) and results.finite[0]
    assert np.isfinite(results.metrics["validation"][1]) and list(results.step) == [0, 2]
    assert (program.take(states, 1).params["x"] != before[1].params["x"]).all()


@pytest.mark.parametrize("layout", slow_after(1, ["map", "vmap"]))
def test_traced_numbers_change_dtypes(layout):
    """A hyper-parameter of a trial promotes no more than a Python float does."""

    def init(key):
        return {"x": jax.random.normal(key, (2,), jnp.bfloat16)}

    def factory(learning_rate, momentum):
        return optax.sgd(learning_rate, momentum)

    task = make_task(init=init)
    trials = make_trials("a", {"learning_rate": (0.1, 0.2), "momentum": (0.5,)}, (1000,))
    records, _ = run_trials(factory, trials, task, layout=layout, devices=jax.devices()[:1])
    expected = fit_records(optax.sgd(0.2, 0.5), 1000, task)
    assert_same_rows(records[trials[1].name].evaluations, expected, rtol=1e-2)
