"""Optuna as the driver of a sweep: what it receives, what processes share, and its errors."""

import builtins
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest
from quadratic_task import quadratic

from lstm_optax.studies import StudyError, optuna_study, optuna_sweep, sweep
from lstm_optax.studies.search_space import check_space, edge_of, hyper_of

RATES = {"learning_rate": (1e-3, 10.0)}
OPTIONS = dict(clip=0, steps=10, eval_every=5, schedule="constant")


@pytest.fixture(autouse=True)
def optuna():
    reason = "optuna is not installed: pip install 'lstm_optax[optuna]'"
    return pytest.importorskip("optuna", reason=reason)


@pytest.fixture
def storage(optuna):
    return optuna.storages.InMemoryStorage()


def trials_of(storage):
    """The trials in a storage, or in the file of a database."""
    import optuna

    opened = optuna.storages.RDBStorage(storage) if isinstance(storage, str) else None
    trials = optuna.load_study(study_name="quadratic.sgd", storage=opened or storage).trials
    if opened:
        opened.remove_session()
        opened.engine.dispose()
    return trials


def settings_of(result):
    return [trial.hyper["learning_rate"] for trial in result.records.trials.values()]


def test_best_value_is_the_best_trial():
    """The value of each rate on a quadratic is known: ½ λ Π(1 − η λ)²."""
    result = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=12, **OPTIONS)
    values = {rate: 0.5 * (1 - rate) ** 20 for rate in settings_of(result)}
    best = min(values, key=values.__getitem__)
    assert result.best == {"learning_rate": best}
    assert result.value == pytest.approx(values[best], rel=1e-3)
    assert len(values) == 12
    choice = result.records.choices["sgd"]
    assert (choice["trials"], choice["void"], choice["edge"]) == (12, False, None)


def test_program_is_compiled_once():
    space = RATES | {"momentum": (0.0, 0.9)}
    result = optuna_sweep(quadratic([1.0]), "momentum_sgd", space, trials=9, **OPTIONS)
    assert result.traces == 1
    assert len({t.hyper["momentum"] for t in result.records.trials.values()}) == 9


def test_larger_is_better_is_maximized():
    task = quadratic([1.0], larger_is_better=True)

    def evaluate(params):
        return {name: -value for name, value in quadratic([1.0]).evaluate(params).items()}

    task = dataclasses.replace(task, evaluate=evaluate)
    result = optuna_sweep(task, "sgd", {"learning_rate": (0.1, 1.0)}, trials=6, **OPTIONS)
    trials = result.records.trials.values()
    assert result.value == max(trial.evaluations[-1]["validation"] for trial in trials)


def test_given_sampler_chooses(optuna):
    sampler = optuna.samplers.RandomSampler(seed=3)
    result = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=3, sampler=sampler, **OPTIONS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    asked = [hyper_of(study.ask(check_space(RATES, {})).params) for _ in range(3)]
    assert settings_of(result) == [hyper["learning_rate"] for hyper in asked]


def test_grid_sampler_is_refused(optuna):
    sampler = optuna.samplers.GridSampler({"learning_rate": [0.1, 0.2]})
    with pytest.raises(StudyError, match="sampler is a GridSampler, but that one tries a grid: ca"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, sampler=sampler)


@pytest.mark.slow
def test_sampler_learns_from_results():
    """A uniform sampler would choose 22 % of the rates within a decade of the best one, 1/λ."""
    space = {"learning_rate": (1e-6, 1e3)}
    result = optuna_sweep(quadratic([1.0]), "sgd", space, trials=40, at_once=2, **OPTIONS)
    near = np.abs(np.log10(settings_of(result)[20:])) < 1
    assert near.mean() >= 0.5


def test_seeds_are_averaged(storage):
    task = quadratic([1.0], noise=0.3)
    result = optuna_sweep(task, "sgd", RATES, trials=3, seeds=2, storage=storage, **OPTIONS)
    assert len(result.records.trials) == 6
    for trial in trials_of(storage):
        rate = hyper_of(trial.params)["learning_rate"]
        rows = [t for t in result.records.trials.values() if t.hyper["learning_rate"] == rate]
        assert sorted(t.seed for t in rows) == [1000, 1001]
        values = [t.evaluations[-1]["validation"] for t in rows]
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(sum(values) / 2)
            assert sorted(trial.intermediate_values) == [5, 10]


def test_diverged_trial_is_pruned(storage):
    """Built-in samplers ignore failed trials, but TPE learns from pruned ones."""
    options = OPTIONS | {"steps": 40, "eval_every": 10}
    space = {"learning_rate": [0.1, 1e3]}
    result = optuna_sweep(quadratic([1.0]), "sgd", space, trials=6, storage=storage, **options)
    states = {}
    for trial in trials_of(storage):
        states.setdefault(trial.params["learning_rate"], set()).add(trial.state.name)
    assert states == {0.1: {"COMPLETE"}, 1e3: {"PRUNED"}}
    assert result.best == {"learning_rate": 0.1}
    assert len(result.records.trials) == 2  # a setting that is chosen again is not trained again


def test_all_diverged_is_void():
    options = OPTIONS | {"steps": 40, "eval_every": 40}
    result = optuna_sweep(
        quadratic([1.0]), "sgd", {"learning_rate": (1e2, 1e3)}, trials=2, **options
    )
    assert (result.best, result.value, result.void) == ({}, None, True)
    assert result.records.choices["sgd"]["edge"] == "low"


def test_second_call_adds_what_is_missing(storage, tmp_path):
    """A sweep in two parts chooses what an unbroken one does."""
    at_once, part, whole = 2, 4, 14
    unbroken = optuna_sweep(
        quadratic([1.0]), "sgd", RATES, trials=whole, at_once=at_once, **OPTIONS
    )
    options = OPTIONS | dict(at_once=at_once, out=tmp_path, storage=storage)
    first = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=part, **options)
    again = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=part, **options)
    assert again.traces == 0 and again.best == first.best
    second = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=whole, **options)
    assert settings_of(second) == settings_of(unbroken)
    assert second.best == unbroken.best
    assert len(trials_of(storage)) == whole
    lines = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [json.loads(line)["record"] for line in lines]
    assert kinds.count("choice") == 2 and kinds.count("study") == 1


def test_folders_share_a_study(storage, tmp_path):
    """The best setting may be one that another process trained."""
    options = OPTIONS | dict(storage=storage)
    first = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=6, out=tmp_path / "a", **options)
    second = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=8, out=tmp_path / "b", **options)
    assert len(first.records.trials) == 6 and len(second.records.trials) == 2
    assert not set(first.records.trials) & set(second.records.trials)
    best = min(trials_of(storage), key=lambda trial: trial.value)
    assert second.best == hyper_of(best.params) and second.value == best.value


def test_interrupted_trials_do_not_count(storage, tmp_path):
    def interrupt(trial, record):
        raise KeyboardInterrupt

    options = OPTIONS | dict(out=tmp_path, storage=storage, at_once=2)
    with pytest.raises(KeyboardInterrupt):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=4, on_evaluation=interrupt, **options)
    assert [t.state.name for t in trials_of(storage)] == ["FAIL", "FAIL"]
    result = optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=4, **options)
    states = [trial.state.name for trial in trials_of(storage)]
    assert states.count("FAIL") == 2 and len(states) == 6
    assert result.records.choices["sgd"]["trials"] == 4


@pytest.mark.slow
def test_choices_and_ranges_are_sampled():
    def ball(learning_rate, momentum, nesterov):
        return optax.sgd(learning_rate, momentum, nesterov=nesterov)

    space = {"learning_rate": [0.1, 0.3], "momentum": (0.0, 0.9), "nesterov": [True, False]}
    result = optuna_sweep(quadratic([1.0]), ball, space, trials=8, **OPTIONS)
    hypers = [trial.hyper for trial in result.records.trials.values()]
    assert {h["learning_rate"] for h in hypers} == {0.1, 0.3}
    assert {h["nesterov"] for h in hypers} == {True, False}
    assert all(0 <= h["momentum"] <= 0.9 for h in hypers)
    assert result.traces == 2  # one for each value that is not a float


def test_values_have_six_digits():
    """As in the name of a trial, so that equal names mean equal values."""
    assert hyper_of({"b1": 0.123456789, "n": 1234567}) == {"b1": 0.123457, "n": 1234567}


def test_scale_of_a_range_follows_its_ratio():
    space = check_space(
        {"learning_rate": (0.1, 0.2), "eps": (1e-8, 1e-6), "b1": (0.5, 0.99), "decay": (0, 1)}, {}
    )
    assert {name: d.log for name, d in space.items()} == {
        "learning_rate": True,
        "eps": True,
        "b1": False,
        "decay": False,
    }


@pytest.mark.parametrize(
    ("hyper", "edge"),
    [
        ({"learning_rate": 1e-3, "eps": 1e-7, "b1": 0.6}, (None, None)),
        ({"learning_rate": 1.08e-4, "eps": 1e-8, "b1": 0.6}, (None, None)),
        ({"learning_rate": 1.02e-4, "eps": 1e-7, "b1": 0.6}, ("learning_rate", "low")),
        ({"learning_rate": 0.0098, "eps": 1e-4, "b1": 0.6}, ("learning_rate", "high")),
        ({"learning_rate": 1e-3, "eps": 0.999e-4, "b1": 0.6}, ("eps", "high")),
        ({"learning_rate": 1e-3, "eps": 1e-7, "b1": 0.5}, (None, None)),
    ],
)
def test_edge_is_one_percent_of_the_width(hyper, edge):
    space = {"b1": (0.5, 0.9), "eps": (1e-12, 1e-4), "learning_rate": (1e-4, 1e-2)}
    assert edge_of(check_space(space, {}), hyper) == edge


@pytest.mark.slow
def test_best_at_a_bound_is_void():
    space = {"learning_rate": (1e-9, 1e-2)}
    result = optuna_sweep(quadratic([1.0]), "sgd", space, trials=30, at_once=2, **OPTIONS)
    choice = result.records.choices["sgd"]
    assert result.void and (choice["edge"], choice["edge_of"]) == ("high", "learning_rate")
    width = math.log10(space["learning_rate"][1] / result.best["learning_rate"])
    assert width < 0.07


def test_study_of_another_task_is_refused(storage):
    options = OPTIONS | dict(storage=storage, study_name="mine")
    optuna_sweep(quadratic([1.0]), "sgd", RATES, trials=1, **options)
    message = "the study 'mine' in the storage has settings .*0.0.*, but this sweep has .*0.5"
    with pytest.raises(StudyError, match=message):
        optuna_sweep(quadratic([1.0], noise=0.5), "sgd", RATES, trials=2, **options)
    with pytest.raises(StudyError, match="has space .*10.0.*, but .*: pass another study_name"):
        optuna_sweep(quadratic([1.0]), "sgd", {"learning_rate": (0.1, 1.0)}, trials=2, **options)


def test_foreign_study_is_refused(optuna, storage):
    study = optuna.create_study(storage=storage, study_name="mine")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="'mine' in the storage has clip None, but this sweep"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, storage=storage, study_name="mine", **OPTIONS)


@pytest.mark.parametrize("url", ["sweep.db", "sqlite:////no/such/folder/sweep.db", "nosql:///x"])
def test_bad_storage_is_refused(url):
    with pytest.raises(StudyError, match=f"the storage '{url}' cannot be opened: pass a URL such"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, storage=url)


def test_database_created_elsewhere_is_opened(optuna, storage, monkeypatch):
    """Two processes may create its tables at the same time; Optuna fails in one of them."""
    pauses, errors = [], ["UNIQUE constraint failed: alembic_version.version_num"] * 2

    def open_database(url):
        if errors:
            raise RuntimeError(errors.pop())
        return storage

    monkeypatch.setattr(optuna.storages, "RDBStorage", open_database)
    monkeypatch.setattr(optuna_study.time, "sleep", pauses.append)
    assert optuna_study._open_storage("sqlite:///a.db") is storage
    assert pauses == [0.2, 0.5]
    errors.extend(["table studies already exists"] * 4)
    with pytest.raises(StudyError, match="cannot be opened: .*already exists"):
        optuna_study._open_storage("sqlite:///a.db")


def test_folder_of_a_grid_is_refused(tmp_path):
    sweep(
        quadratic([1.0]),
        "sgd",
        grid={"learning_rate": [0.1]},
        out=tmp_path,
        extensions=0,
        **OPTIONS,
    )
    with pytest.raises(StudyError, match="holds a study with"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, out=tmp_path, **OPTIONS)
    assert not (tmp_path / "optuna.db").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"momentum": (0.1, 0.9)}, "the space has no learning_rate: add its range, such as"),
        ({"learning_rate": (0.1, 0.1)}, r"the range of learning_rate is \(0.1, 0.1\), but must ri"),
        ({"learning_rate": (0, 0.1)}, r"the range of learning_rate is \(0, 0.1\), but must be abo"),
        ({"learning_rate": (0.1, math.inf)}, "but must be a range, a tuple of two numbers, or a l"),
        ({"learning_rate": (1e-3, 1e-2, 1e-1)}, "the space of learning_rate is .* or a list of c"),
        ({"learning_rate": 0.1}, "the grid of learning_rate is 0.1, but must be a list of values"),
        ({"learning_rate": []}, r"the grid of learning_rate is \[\], but must be a list of values"),
        ({"learning_rate": [-1.0]}, "a learning_rate of the grid is -1.0, but must be above 0"),
        ({**RATES, "mode": [{}]}, "a mode of the grid is {}, but must be a number or text"),
    ],
)
def test_bad_space_is_refused(space, message):
    with pytest.raises(StudyError, match=message):
        optuna_sweep(quadratic([1.0]), "sgd", space)


@pytest.mark.parametrize("name", ["trials", "at_once", "seeds"])
def test_bad_count_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0, but must be a whole number of at least 1"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, **{name: 0})


def test_missing_optuna_names_the_extra(monkeypatch):
    def import_module(name, *arguments, **options):
        if name.split(".")[0] == "optuna":
            raise ImportError(name)
        return find(name, *arguments, **options)

    find = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", import_module)
    with pytest.raises(StudyError, match=r"pip install 'lstm_optax\[optuna\]'"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES)


def test_value_in_space_and_settings_is_refused():
    options = OPTIONS | dict(settings={"learning_rate": 0.1})
    with pytest.raises(StudyError, match="learning_rate is in the space and in settings: leave"):
        optuna_sweep(quadratic([1.0]), "sgd", RATES, **options)


def test_range_outside_the_rule_is_refused():
    space = RATES | {"momentum": (2.0, 3.0)}
    with pytest.raises(StudyError, match="momentum_sgd does not accept .*momentum is 2"):
        optuna_sweep(quadratic([1.0]), "momentum_sgd", space, **OPTIONS)


def test_error_of_the_task_is_raised():
    def broken(learning_rate):
        return optax.sgd(learning_rate), 1

    with pytest.raises(StudyError, match="broken cannot train quadratic: optimizer is"):
        optuna_sweep(quadratic([1.0]), broken, RATES, trials=2, **OPTIONS)


@pytest.mark.slow
def test_folder_holds_the_database(optuna, caplog, capsys, tmp_path):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    for trials in (2, 3):
        result = optuna_sweep(
            quadratic([1.0]), "sgd", RATES, trials=trials, out=tmp_path, **OPTIONS
        )
        assert len(result.records.trials) == trials
    assert capsys.readouterr() == ("", "") and not caplog.records
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert len(trials_of(f"sqlite:///{tmp_path}/optuna.db")) == 3


PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from quadratic_task import quadratic
from lstm_optax.studies import optuna_sweep
optuna_sweep(
    quadratic([1.0], noise=0.1), "sgd", {"learning_rate": (1e-3, 1.0)}, trials=12, clip=0,
    steps=10, eval_every=5, storage=sys.argv[2], at_once=1,
)
"""


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path):
    storage = f"sqlite:///{tmp_path}/trials.db"
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), storage]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    trials = trials_of(storage)
    rates = [trial.params["learning_rate"] for trial in trials]
    assert len(set(rates)) == len(rates)
    assert 12 <= len(rates) <= 13 and {t.state.name for t in trials} == {"COMPLETE"}


def test_arguments_in_the_wrong_order_are_named():
    with pytest.raises(StudyError, match="task is 'nadam', but must be a Task, such as"):
        optuna_sweep("nadam", quadratic, space=RATES, trials=1)
