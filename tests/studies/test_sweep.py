"""`sweep`: one trace, resuming after any interruption, refused arguments."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from quadratic import assert_same_rows, fit_records, make_task, without_seconds

import lstm_optax as lo
from lstm_optax.records import read_records
from lstm_optax.runs import OptionError
from lstm_optax.studies import StudyError, compare, range_test, read_study, sweep
from lstm_optax.studies._sweep import make_budget
from lstm_optax.studies.contender import Budget, optimizer_factory

RATES = (0.03, 0.1, 0.3)
DIVERGING = (0.1, 1e12, 0.3)


def marked(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def plain_sweep(task=None, grid=None, optimizer=lo.adam, **options):
    grid = grid or {"learning_rate": RATES}
    return sweep(task or make_task(), optimizer, grid=grid, name="a", **options)


def trials_without_seconds(records):
    return {
        name: without_seconds([trial.evaluations, trial.end])
        for name, trial in records.trials.items()
    }


def test_sweep_traces_twice():
    result = plain_sweep(seeds=2, extensions=3)
    assert result.traces == 1 and len(result.records.trials) >= 8
    trial = result.records.trials["a learning_rate=0.1 seed=1001"]
    assert_same_rows(trial.evaluations, fit_records(lo.adam(0.1), 1001))
    values = [
        trial.evaluations[-1]["validation"]
        for trial in result.records.trials.values()
        if trial.hyper == result.best
    ]
    assert len(values) == 2 and result.value == np.mean(values)
    assert result.folder is None


def test_named_optimizer_has_no_schedule_or_clip():
    grid = {"learning_rate": (0.1, 0.2), "b1": (0.8, 0.9), "clip": (0.5, 5.0)}
    options = dict(warmup=3, settings={"b2": 0.9}, extensions=0)
    result = sweep(make_task(), "adam", grid=grid, **options)
    assert result.traces == 1 and len(result.records.trials) == 8
    rise = optax.linear_schedule(0.0, 0.2, 3)
    rate = optax.join_schedules([rise, optax.cosine_decay_schedule(0.2, 9)], [3])
    optimizer = optax.chain(lo.clip_by_global_norm(0.5), lo.adam(rate, b1=0.8, b2=0.9))
    found = result.records.trials["adam learning_rate=0.2 b1=0.8 clip=0.5 seed=1000"]
    assert_same_rows(found.evaluations, fit_records(optimizer, 1000), rtol=1e-4)
    (facts,) = result.records.optimizers.values()
    assert facts["parameters"] == 2 and facts["compile_seconds"] > 0
    # two moments, and the states of the clip, the count and the rate
    assert facts["state_bytes_per_parameter"] >= 8


@pytest.mark.slow
def test_fixed_values_compile_more_than_once_each():
    def factory(learning_rate, nesterov, kind, power):
        assert isinstance(nesterov, bool) and isinstance(kind, str) and isinstance(power, int)
        rate = learning_rate**power if kind == "power" else learning_rate
        return optax.sgd(rate, 0.5, nesterov=nesterov)

    grid = {"learning_rate": (0.1, 0.2), "nesterov": (True, False), "kind": ("power",)}
    result = plain_sweep(grid=grid | {"power": (1, 2)}, optimizer=factory, extensions=0)
    assert result.traces == 4 and len(result.records.trials) == 8
    name = "a learning_rate=0.2 nesterov=False kind=power power=2 seed=1000"
    expected = fit_records(optax.sgd(0.2**2, 0.5), 1000)
    rows = [row | {"learning_rate": None} for row in expected]
    assert_same_rows(result.records.trials[name].evaluations, rows)


def test_second_sweep_trains(tmp_path):
    first = plain_sweep(out=tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    again = plain_sweep(out=tmp_path)
    assert again.traces == 0 and (tmp_path / "records.jsonl").read_bytes() == before
    assert (again.best, again.value, again.void) == (first.best, first.value, first.void)
    more = plain_sweep(out=tmp_path, seeds=2)
    assert more.traces == 1
    assert (tmp_path / "records.jsonl").read_bytes().startswith(before)
    begun = read_records(tmp_path / "records.jsonl")
    names = [record["trial"] for record in begun if record["record"] == "trial"]
    assert len(names) == len(set(names)), "a trial that ended began again"


@pytest.mark.parametrize(
    "after, halving", [(4, 2), *marked((1, 0), (4, 0), (6, 0), (1, 2), (6, 2))]
)
def test_interrupted_sweep_differs(after, halving, tmp_path):
    grid = {"learning_rate": DIVERGING}
    options = dict(grid=grid, halving=halving, optimizer=lo.sgd, extensions=1)
    whole = plain_sweep(**options)
    seen = []

    def interrupt(trial, record):
        seen.append(trial)
        if len(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain_sweep(**options, out=tmp_path, on_evaluation=interrupt)
    ended = {name for name, trial in read_study(tmp_path).trials.items() if trial.end}
    rerun = []
    result = plain_sweep(
        **options, out=tmp_path, on_evaluation=lambda trial, row: rerun.append(trial.name)
    )
    assert not ended & set(rerun), "a trial that ended was trained again"
    assert trials_without_seconds(result.records) == trials_without_seconds(whole.records)
    assert (result.best, result.value, result.void) == (whole.best, whole.value, whole.void)


@pytest.mark.slow
@pytest.mark.parametrize("halving", [0, 2])
def test_killed_sweep_differs(halving, tmp_path):
    """Cut the file after each line, and inside of it, and continue."""
    options = dict(halving=halving, extensions=0, optimizer=lo.sgd)
    options |= dict(grid={"learning_rate": DIVERGING}, layout="map")
    whole = plain_sweep(**options, out=tmp_path / "whole")
    lines = (tmp_path / "whole" / "records.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(0, len(lines), 3):
        folder = tmp_path / str(kept)
        folder.mkdir()
        torn = lines[kept][: len(lines[kept]) // 2]
        (folder / "records.jsonl").write_bytes(b"".join(lines[:kept]) + torn)
        result = plain_sweep(**options, out=folder)
        found, expected = (trials_without_seconds(r.records) for r in (result, whole))
        assert found == expected
        assert result.best == whole.best


@pytest.mark.slow
def test_halving_continues_with_another_grid(tmp_path):
    options = dict(out=tmp_path, extensions=0, halving=2)
    plain_sweep(**options)
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(StudyError, match="with seeds 1, but this one has 2"):
        plain_sweep(**options, seeds=2)
    with pytest.raises(StudyError, match=r"with grid {'learning_rate': \[0.03, 0.1, 0.3\]}, but"):
        plain_sweep(**options, grid={"learning_rate": (0.1, 0.3)})
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.slow
def test_sweep_of_diverged_trials_fails():
    result = plain_sweep(grid={"learning_rate": (1e12, 1e13)}, optimizer=lo.sgd, extensions=1)
    assert result.best == {} and result.value is None and result.void
    assert len(result.records.trials) == 3
    assert "a learning_rate=1e+11 seed=1000" in result.records.trials


def test_devices_stay_idle():
    """A trial that alone remains does not decide how many slots the rest has."""
    result = plain_sweep(extensions=0, layout="map")
    (facts,) = result.records.optimizers.values()
    assert facts["slots"] == min(3, jax.device_count())


BAD = {
    "steps": (dict(steps=10, eval_every=4), StudyError, "steps is 10, but must be a multiple of"),
    "no steps": (dict(steps=0), ValueError, "steps is 0, but must be a whole number of at least 1"),
    "seeds": (dict(seeds=0), ValueError, "seeds is 0, but must be a whole number of at least 1"),
    "halving": (dict(halving=1), ValueError, "halving is 1, but must be 0 for none, or at least 2"),
    "extensions": (dict(extensions=-1), ValueError, "extensions is -1, but must be a whole"),
    "grid": (dict(grid={"b1": (0.1,)}), StudyError, "the grid has no learning_rate"),
    "value": (
        dict(grid={"learning_rate": (0.1,), "b1": (0.9, 1.5)}),
        StudyError,
        r"adam does not accept learning_rate=0.1 b1=1.5: b1 is 1.5, but must be a number in \[0, 1",
    ),
    "name": (
        dict(grid={"learning_rate": (0.1,), "beta": (0.9,)}),
        StudyError,
        "adam does not accept learning_rate=0.1 beta=0.9: .*beta",
    ),
    "settings": (dict(settings={"beta": 1}), StudyError, "adam does not accept .*beta"),
    "optimizer": (dict(optimizer="adm"), OptionError, "unknown optimizer 'adm'; the nearest is"),
    "schedule": (dict(schedule="sine"), ValueError, "schedule is 'sine', but must be 'constant'"),
    "warmup": (dict(warmup=-1), ValueError, "warmup is -1, but must be a whole number of at least"),
    "long warmup": (
        dict(warmup=12),
        StudyError,
        "warmup is 12, but must be less than steps, which",
    ),
    "untrainable": (
        dict(optimizer="optax.lbfgs"),
        StudyError,
        "optax.lbfgs cannot train quadratic",
    ),
    "odd steps": (
        dict(steps=13, task=make_task(eval_every=12)),
        StudyError,
        "steps is 13, but must be a multiple of eval_every, 12",
    ),
    "clip": (dict(clip=-1.0), ValueError, "clip is -1.0, but must be a number of at least 0"),
    "layout": (dict(layout="rows"), ValueError, "layout is 'rows', but must be 'auto' or"),
    "lambda": (
        dict(optimizer=lambda learning_rate: lo.sgd(learning_rate)),
        StudyError,
        "the optimizer is a function without a name: pass name=…",
    ),
    "task": (
        dict(task=make_task(metric="accuracy")),
        StudyError,
        "task quadratic: evaluate returns 'test', 'validation', but not 'accuracy'",
    ),
    "no transformation": (
        dict(optimizer=dict, name="a"),
        StudyError,
        "a cannot train quadratic: optimizer is ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_argument_is_accepted(name, tmp_path):
    changes, kind, message = BAD[name]
    options = dict(task=make_task(), optimizer="adam", grid={"learning_rate": RATES}) | changes
    with pytest.raises(kind, match=f"^{message}"):
        sweep(**options, out=tmp_path / "new")
    assert not (tmp_path / "new").exists(), "a folder is written before the check"


@pytest.mark.slow
def test_other_rule_continues_the_sweep(tmp_path):
    grid = {"learning_rate": (0.1,)}
    options = dict(grid=grid, name="a", out=tmp_path, extensions=0)
    sweep(make_task(), "sgd", **options)
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(StudyError, match="with rule sgd, but this one has adam: name another"):
        sweep(make_task(), "adam", **options)
    with pytest.raises(StudyError, match="with steps 12, but this one has 24"):
        sweep(make_task(steps=24), "sgd", **options)
    with pytest.raises(StudyError, match=r"with settings {'seed': 1}, but this one has {}"):
        folder = dict(options, out=tmp_path / "other")
        sweep(make_task(settings={"seed": 1}), "sgd", **folder)
        sweep(make_task(), "sgd", **folder)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_steps_of_a_short_sweep():
    assert make_budget(make_task(), 6, None) == Budget(6, 3)
    assert make_budget(make_task(), 8, 8) == Budget(8, 8)
    assert make_budget(make_task(), None, None, "vmap") == Budget(12, 4, "vmap")
    assert make_budget(make_task(eval_every=12), 7, None) == Budget(7, 7)


def test_factory_of_no_clip_clips():
    factory = optimizer_factory("sgd", schedule="constant", steps=4, clip=0)
    optimizer = factory(learning_rate=1.0)
    updates, _ = optimizer.update({"x": np.float32(7.0)}, optimizer.init({"x": np.float32(0)}))
    assert updates["x"] == -7.0
    updates, _ = factory(1.0, clip=2.0).update(
        {"x": np.float32(7.0)}, factory(1.0, clip=2.0).init({"x": np.float32(0)})
    )
    assert updates["x"] == -2.0


def test_required_argument_has_no_grid():
    """PyTorch-like factories may have a number without a default, which a grid can give."""
    grid = {"learning_rate": (0.1,), "momentum": (0.5, 0.9)}
    result = sweep(make_task(), "presets.tf1.MomentumOptimizer", grid=grid, extensions=0)
    assert [t.hyper["momentum"] for t in result.records.trials.values()] == [0.5, 0.9]


def test_error_of_user_function_is_cut():
    def broken(params):
        return {"validation": params["absent"], "test": 0.0}

    with pytest.raises(StudyError, match="(?s)failed:.Traceback.*in broken.*absent|indices"):
        sweep(replace(make_task(), evaluate=broken), "sgd", grid={"learning_rate": (0.1,)})


@pytest.mark.parametrize("study", [sweep, compare, range_test])
def test_arguments_in_the_wrong_order_are_named(study):
    given, task = ("nadam", make_task()) if study is not compare else (["sgd", "adam"], make_task())
    with pytest.raises(StudyError, match=r"task is .*(nadam|sgd).*, but must be a Task, such as"):
        study(given, task)
