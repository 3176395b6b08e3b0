"""`measure_gate_muon.py`: its turns are those of a trial, and equal seconds follow from them."""

import re
from functools import partial

import jax
import pytest
import study_gate_muon
from gate_muon_table import RECORDS, cells_with_records, read_cell, seconds_table
from measure_gate_muon import TIMED, Turns, disturbance, measure, times_table
from study_gate_muon import CELLS, SECONDS, length, make_optimizer, read_times

import lstm_optax as lo
from lstm_optax.records import append_record
from lstm_optax.studies.contender import Budget, Contender
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial import make_trials
from lstm_optax.tasks import sequences

PAGE = RECORDS.parent / "gate_muon.md"


@pytest.fixture
def small(monkeypatch):
    """A task of a few steps in place of the adding problem."""

    def task(hidden):
        return sequences(length=4, hidden=hidden, batch=2, held_out=4, steps=6, eval_every=3)

    monkeypatch.setitem(study_gate_muon.TASKS, "adding", task)
    return task(2)


@pytest.fixture
def times(monkeypatch, tmp_path):
    """Times in which a step of `gate_muon` takes 1.3 of Nadam's, and one of Adam as long."""
    seconds = {"gate_muon": [0.13, 0.26, 9.0], "nadam": [0.1, 0.2, 0.3], "adam": [0.1, 0.2, 0.3]}
    seconds = dict.fromkeys(TIMED, seconds["adam"]) | seconds
    for of in (0.0, 1.0):  # the last record counts
        record = {
            "cell": "adding_32",
            "seconds": {n: [s + 1 - of for s in seconds[n]] for n in seconds},
        }
        append_record(tmp_path / "times.jsonl", record)
    found = read_times(tmp_path / "times.jsonl")
    monkeypatch.setattr(study_gate_muon, "read_times", lambda: found)
    return found


def test_turn_takes_steps_of_a_trial(small):
    rule, rates = study_gate_muon.RULES["gate_muon"]
    turns = Turns("adding_2", "gate_muon")
    found = jax.tree.map(lambda leaf: leaf[0], turns.states.params)
    log = StudyLog(None, "compare", {}, {})
    factory = partial(make_optimizer, rule, small.steps)
    contender = Contender("gate_muon", factory, small, Budget(6, 3), log)
    contender.run(make_trials("gate_muon", {"learning_rate": (min(rates),)}, [0]))
    (trial,) = log.read().trials.values()
    first, last = (row["validation"] for row in trial.evaluations)
    assert float(small.evaluate(found)["validation"]) == pytest.approx(first, rel=1e-5)
    assert first != pytest.approx(last, rel=1e-4)
    assert all(turns.take() > 0) and turns.taken == 6


@pytest.mark.slow
def test_every_round_has_each_optimizer(small):
    found = measure("adding_2", rounds=2)
    for seconds in found.values():
        assert list(seconds) == list(TIMED) and all(len(turns) == 2 for turns in seconds.values())
        assert all(turn > 0 for turns in seconds.values() for turn in turns)


def test_disturbance_is_of_all_turns():
    found = {"seconds": {"nadam": [1.0, 1.0]}, "wall_seconds": {"nadam": [1.0, 3.0]}}
    assert disturbance(found) == 2


def test_diverged_turn_is_no_time(small, monkeypatch):
    monkeypatch.setitem(study_gate_muon.RULES, "nadam", (lo.sgd, (1e30,)))
    with pytest.raises(RuntimeError, match="diverged after"):
        Turns("adding_2", "nadam")


def test_equal_seconds_are_more_steps(times):
    assert length("adding_32") == (400, 50)
    assert length(f"adding_32{SECONDS}") == (520, 65)  # 1.3 is the median of the ratios


def test_table_of_times_has_medians(times):
    table = times_table(times).splitlines()
    assert "| nadam, ms | 200.00 |" in table
    assert "| gate_muon, ratio | 1.30 |" in table and "| adam, ratio | 1.00 |" in table


def test_page_has_table_of_times():
    times = read_times()
    assert set(times) == set(CELLS)
    assert times_table(times) in PAGE.read_text("utf-8")
    assert all(len(set(map(len, of["seconds"].values()))) == 1 for of in times.values())


def test_times_are_those_of_a_clean_commit():
    for record in read_times().values():
        assert re.fullmatch("[0-9a-f]{40}", record["made_by"]["commit"])


def test_page_has_table_at_equal_seconds():
    assert cells_with_records(SECONDS) == list(CELLS)
    assert seconds_table() in PAGE.read_text("utf-8")


@pytest.mark.parametrize("cell", cells_with_records(SECONDS))
def test_study_at_equal_seconds_has_its_steps(cell):
    if cell.startswith("digits"):
        pytest.importorskip("sklearn", reason="needs pip install 'lstm_optax[digits]'")
    task = read_cell(f"{cell}{SECONDS}").study["task"]
    assert (task["steps"], task["eval_every"]) == length(f"{cell}{SECONDS}")
    assert task["settings"] == read_cell(cell).study["task"]["settings"]
