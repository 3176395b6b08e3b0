"""`awd-lstm-averaging`: the words, and the ratio of the perplexities."""

import math

import numpy as np
import pytest

from lstm_optax.reproductions import REPRODUCTIONS, word_averaging
from lstm_optax.studies import StudyRecords, TrialRecords

KEY = ("SGD / NT-ASGD", "ratio of test perplexities")


def trial(row, seed, losses, status="finished"):
    rows = [{"step": i, "validation": v, "test": t} for i, (v, t) in enumerate(losses)]
    return TrialRecords(f"{row} {seed}", row, {}, seed, "report", rows, {"status": status})


def measure(*trials):
    study = StudyRecords({}, {}, {one.name: one for one in trials}, {})
    return word_averaging.measure(study, REPRODUCTIONS["awd-lstm-averaging"])


def test_ratio_is_of_the_best_validation():
    found = measure(
        trial("SGD", 0, [(5.0, 5.1), (4.8, 4.9), (4.9, 4.7)]),
        trial("NT-ASGD", 0, [(5.0, 5.1), (4.7, 4.8)]),
        trial("NT-ASGD", 1, [(5.0, 5.1)]),
    )
    assert found[KEY] == pytest.approx([math.exp(0.1)])


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
