"""`greff-2017`: random settings, input noise, and shares of the variance that are known."""

import math

import numpy as np
import pytest

from lstm_optax.reproductions import REPRODUCTIONS, rate_share
from lstm_optax.studies import StudyRecords, TrialRecords
from lstm_optax.tasks import digits

ROWS = ("learning rate", "hidden size", "input noise", "momentum")


def trial(seed, accuracy, status="finished"):
    setting = rate_share.draw_setting(seed)
    rows = [{"step": 1, "test_accuracy": accuracy}]
    return TrialRecords(str(seed), "hidden", setting, seed, "report", rows, {"status": status})


def places(setting):
    """The place of each hyper-parameter in its range, from 0 to 1, on its scale."""
    sizes = np.linspace(0, 1, len(rate_share.HIDDEN))
    return (
        (math.log10(setting["learning_rate"]) + 3) / 4,
        sizes[rate_share.HIDDEN.index(setting["hidden"])],
        setting["noise"],
        math.log10(1 - setting["momentum"]) / 2 + 1,
    )


def test_settings_fill_their_ranges():
    drawn = [rate_share.draw_setting(seed) for seed in range(2000)]
    assert drawn[7] == rate_share.draw_setting(7)
    found = np.array([places(setting) for setting in drawn])
    np.testing.assert_allclose(found.mean(axis=0), 0.5, atol=0.03)
    assert found.min() > -1e-3 and found.max() < 1 + 1e-3
    correlations = np.corrcoef(found.T) - np.eye(4)
    assert np.abs(correlations).max() < 0.08


def test_momentum_does_not_change_the_mean_step():
    """For a constant gradient the steps of all momenta converge to the learning rate."""
    for momentum in (0.0, 0.5, 0.9):
        optimizer = rate_share.make_optimizer(0.3, momentum=momentum, hidden=20, noise=0.0)
        state = optimizer.init(np.float32(0))
        for _ in range(200):
            update, state = optimizer.update(np.float32(1), state)
        np.testing.assert_allclose(update, -0.3, rtol=1e-5)


def test_noise_has_the_size_of_the_setting():
    pytest.importorskip("sklearn", reason="needs pip install 'lstm_optax[digits]'")
    noisy = rate_share.noisy_digits(20, 2)
    plain = digits(order="rows", hidden=20, batch=rate_share.BATCH)
    for seed in (0, 1):
        size = rate_share.draw_setting(seed)["noise"]
        noise = [noisy.batches(p, seed).inputs - plain.batches(p, seed).inputs for p in range(9)]
        assert np.std(noise) == pytest.approx(size, rel=0.05)
    assert not np.array_equal(noise[0], noise[1])


@pytest.mark.slow
def test_shares_of_a_known_function():
    """The variance of a sum of independent terms is the sum of their variances: 4 : 1."""
    pytest.importorskip("optuna", reason="needs the extra: pip install 'lstm_optax[optuna]'")
    pytest.importorskip("sklearn", reason="needs pip install 'lstm_optax[digits]'")
    trials = []
    for seed in range(200):
        rate, _, noise, _ = places(rate_share.draw_setting(seed))
        trials.append(trial(seed, 1 - (0.6 * rate + 0.3 * noise)))
    shares = rate_share.explained_shares(trials)
    assert shares["learning rate"] == pytest.approx(0.8, abs=0.06)
    assert shares["input noise"] == pytest.approx(0.2, abs=0.06)
    assert shares["momentum"] < 0.02 and shares["hidden size"] < 0.02


def test_searches_are_measured_when_whole(monkeypatch):
    trials = {str(seed): trial(seed, 0.5) for seed in range(5)}
    study = StudyRecords({"settings": {"settings": 2}}, {}, trials, {})
    sizes = []

    def explain(trials):
        sizes.append([one.seed for one in trials])
        return dict.fromkeys(ROWS, float(len(sizes)))

    monkeypatch.setattr(rate_share, "explained_shares", explain)
    found = rate_share.measure(study, REPRODUCTIONS["greff-2017"])
    assert sizes == [[0, 1], [2, 3]]
    assert found == {(row, "share of variance"): [1.0, 2.0] for row in ROWS}


def test_diverged_trial_has_the_error_of_a_guess():
    assert rate_share._error(trial(0, None, "diverged")) == 0.9
    assert rate_share._error(trial(0, 0.75)) == 0.25
