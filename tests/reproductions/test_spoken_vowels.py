"""`spoken-vowels`: the files of the data, their split, and the accuracy that is reported."""

import math

import numpy as np
import pytest
from small_data import small_wheel, use_small_data

from lstm_optax.reproductions import REPRODUCTIONS, reproduce, spoken_vowels
from lstm_optax.studies import StudyRecords, TrialRecords


@pytest.fixture(scope="module")
def task():
    return spoken_vowels.speakers(small_wheel(), hidden=2, steps=2, eval_every=2, batch=64)


def test_series_are_read_and_padded():
    text = "@data\n1,2:3,4" + ":5,6" * 10 + ":9\n" + ":".join(["7,8,9"] * 12) + ":1\n"
    found = spoken_vowels.read_series(text)
    assert found.inputs.shape == (29, 2, 12)
    assert found.lengths.tolist() == [2, 3]
    assert found.targets.tolist() == [8, 0]
    assert found.inputs[:3, 0, :3].tolist() == [[1, 3, 5], [2, 4, 6], [0, 0, 0]]
    assert found.inputs[:4, 1, 11].tolist() == [7, 8, 9, 0]


def test_last_utterances_are_not_trained_on(task):
    batches = [task.batches(position, 0) for position in range(4)]
    assert {float(x) for batch in batches for x in batch.inputs[0, :, 0]} == {0.0, 1.0}
    assert {int(y) for batch in batches for y in batch.targets} == set(range(9))


def test_padding_has_no_influence(task):
    import jax

    params, batch = task.init(jax.random.key(0)), task.batches(0, 0)
    padding = np.arange(29)[:, None] >= batch.lengths
    changed = batch._replace(inputs=np.where(padding[..., None], 1e3, batch.inputs))
    losses = [task.loss(params, (), b, jax.random.key(1))[0] for b in (batch, changed)]
    assert losses[0] == losses[1]


def trial(rate, seed, loss, accuracy, status="finished"):
    row = {"step": 1, "validation": loss, "validation_accuracy": accuracy + 0.01}
    rows = [row | {"test_accuracy": accuracy}]
    hyper, end = {"learning_rate": rate}, {"status": status}
    return TrialRecords(f"LSTM {rate} {seed}", "LSTM", hyper, seed, "report", rows, end)


def measure(*trials):
    study = StudyRecords({}, {}, {one.name: one for one in trials}, {})
    return spoken_vowels.measure(study, REPRODUCTIONS["spoken-vowels"])


def test_rate_is_chosen_on_the_validation_loss():
    found = measure(
        trial(0.01, 1, 0.2, 0.95),
        trial(0.01, 0, 0.2, 0.94),
        trial(0.03, 0, 0.1, 0.98),
        trial(0.03, 1, 0.5, 0.99),
    )
    assert found == {
        ("LSTM", "test accuracy"): [0.94, 0.95],
        ("LSTM", "validation accuracy, rate 0.01"): pytest.approx([0.95, 0.96]),
    }


def test_rate_at_which_a_trial_diverged_is_not_chosen():
    found = measure(trial(0.01, 0, 0.9, 0.7), trial(0.03, 0, 0.1, 0.9, "diverged"))
    assert found["LSTM", "test accuracy"] == [0.7]
    found = measure(trial(0.03, 0, 0.1, 0.9, "diverged"))
    assert math.isnan(found["LSTM", "test accuracy"][0])
    assert measure() == {}


def test_command_trains_every_rate_and_seed(tmp_path, monkeypatch):
    use_small_data(path := tmp_path / "aeon.whl", monkeypatch, "spoken-vowels")
    records = reproduce("spoken-vowels", data=path, seeds=2, quick=True)
    assert len(records.trials) == 8
    assert all(trial.end for trial in records.trials.values())
