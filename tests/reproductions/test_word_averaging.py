"""`awd-lstm-averaging`: the words, and the ratio of the perplexities."""

import math

import numpy as np
import pytest

from lstm_optax.reproductions import REPRODUCTIONS, word_averaging
from lstm_optax.studies import StudyRecords, TrialRecords

KEY = ("SGD / NT-ASGD", "ratio of test perplexities")


def trial(row, seed, losses, status="finished", rate=10.0):
    rows = [{"step": i, "validation": v, "test": t} for i, (v, t) in enumerate(losses)]
    hyper, end = {"learning_rate": rate}, {"status": status}
    return TrialRecords(f"{row} {rate} {seed}", row, hyper, seed, "report", rows, end)


def measure(*trials):
    study = StudyRecords({}, {}, {one.name: one for one in trials}, {})
    return word_averaging.measure(study, REPRODUCTIONS["awd-lstm-averaging"])


def test_ratio_is_of_the_best_validation():
    found = measure(
        trial("SGD", 0, [(5.0, 5.1), (4.8, 4.9), (4.9, 4.7)]),
        trial("NT-ASGD", 0, [(5.0, 5.1), (4.7, 4.8)]),
    )
    assert found[KEY] == pytest.approx([math.exp(0.1)])
    assert found["SGD", "test perplexity, rate 10"] == pytest.approx([math.exp(4.9)])


def test_each_rate_is_chosen_on_validation_over_all_seeds():
    found = measure(
        *(trial("SGD", seed, [(5.0, 5.1)], rate=3.0) for seed in (0, 1)),
        trial("SGD", 0, [(4.0, 4.1)], rate=10.0),  # the best, but the other seed diverges
        trial("SGD", 1, [(4.0, 4.1)], "diverged", rate=10.0),
        trial("SGD", 0, [(4.0, 4.1)], rate=30.0),  # a seed is missing
        *(trial("NT-ASGD", seed, [(5.2, 4.0)], rate=3.0) for seed in (0, 1)),
        *(trial("NT-ASGD", seed, [(5.1, 4.9)], rate=30.0) for seed in (0, 1)),
    )
    assert found[KEY] == pytest.approx([math.exp(0.2)] * 2)
    assert set(found) - {KEY} == {
        ("SGD", "test perplexity, rate 3"),
        ("NT-ASGD", "test perplexity, rate 30"),
    }


def test_diverged_trial_has_no_ratio():
    found = measure(trial("SGD", 0, [(5.0, 5.1)], "diverged"), trial("NT-ASGD", 0, [(5.0, 5.1)]))
    assert found[KEY] == [math.inf]
    assert measure(trial("SGD", 0, [(5.0, 5.1)])) == {}


def test_rare_words_are_unknown():
    train = "a b a b c\r\n" * 4 + "rare words a b\n" + "a b\n" * 9  # four fifths of all words
    held = "rare a b c a b\n" * 2
    text = train + held
    found = text.replace("\r\n", "\n").replace("\n", " <eos> ").split()
    size = len(found) // 10
    sizes = dict(hidden=4, batch=2, window=3, steps=2, eval_every=2)
    task = word_averaging.words(text, **sizes)
    kept = {w for w in found[: -2 * size] if found[: -2 * size].count(w) >= 2}
    assert task.settings["words"] == 1 + len(kept) and "rare" not in kept
    first = task.batches(0, 0)
    assert first.inputs.shape == (3, 2) and np.all(first.inputs[:, 0] > 0)  # a b a
