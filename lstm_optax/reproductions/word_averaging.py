"""AWD-LSTM's averaged SGD against SGD, on the words of the begin of War and Peace."""

import math
from collections import Counter
from typing import Any, NamedTuple

import jax
from flax import nnx

from lstm_optax.data import Windows, WordVocabulary
from lstm_optax.data.tokens import UNKNOWN, words_in
from lstm_optax.lstm import LSTM
from lstm_optax.models import LanguageModel
from lstm_optax.reproductions.chosen_rate import chosen_rate
from lstm_optax.reproductions.plan import Group, Options, Plan
from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies.contender import optimizer_factory
from lstm_optax.studies.study_records import StudyRecords, TrialRecords
from lstm_optax.studies.trial import REPORT, make_trials
from lstm_optax.tasks import Task
from lstm_optax.tasks.text_task import make_text_task

BYTES = 500_000  # of the text
RAREST = 2  # occurrences of a word of the vocabulary in the training part
CLIP = 0.25
RATES = (1.0, 3.0, 10.0, 30.0, 100.0)  # for both
ROWS = "SGD", "NT-ASGD"
RATIO = "SGD / NT-ASGD", "ratio of test perplexities"
SIZES = dict(hidden=200, batch=20, window=35, steps=2400, eval_every=120)
QUICK = dict(hidden=8, batch=2, window=5, steps=4, eval_every=2)


def make_plan(options: Options) -> Plan:
    """Return the trials: both optimizers with each rate, which stays constant, and each seed."""
    text = (options.data or b"")[:BYTES].decode("utf-8", errors="ignore")
    task = words(text, **(QUICK if options.quick else SIZES))
    common: dict[str, Any] = dict(schedule="constant", steps=task.steps)
    factories = {
        "SGD": optimizer_factory("sgd", clip=CLIP, **common),
        "NT-ASGD": optimizer_factory(
            "awd_sgd", clip=0.0, settings=dict(clip=CLIP, weight_decay=0.0), **common
        ),
    }
    grid, seeds = {"learning_rate": RATES}, range(options.seeds)
    groups = [
        Group(row, task, factory, make_trials(row, grid, seeds, REPORT))
        for row, factory in factories.items()
    ]
    return Plan(options.reproduction.name, groups, {"clip": CLIP, "rates": RATES})


def measure(study: StudyRecords, reproduction: Reproduction) -> dict[tuple[str, str], list[float]]:
    """Return for each seed the test perplexities, and that of SGD divided by that of NT-ASGD.

    Each optimizer has the rate with the best mean validation loss of those that all seeds have.
    """
    found, tests = {}, {}
    for row in ROWS:
        chosen = chosen_rate(study, row, lambda trial: _best_losses(trial).validation)
        if chosen is None:
            return {}
        rate, trials = chosen
        tests[row] = [_best_losses(trial).test for trial in trials]
        found[row, f"test perplexity, rate {rate:g}"] = [math.exp(loss) for loss in tests[row]]
    ratios = [math.exp(sgd - averaged) for sgd, averaged in zip(*tests.values(), strict=True)]
    return {RATIO: ratios, **found}


def words(text: str, *, hidden: int, batch: int, window: int, steps: int, eval_every: int) -> Task:
    """Return the task of predicting the next word, with a tied embedding and AWD-LSTM's dropout.

    The last two tenths of the words are for validation and test. Words that occur less than twice
    in the training part are `<unk>`.

    Args:
      text: of any length.
      hidden: units of the layer, and features of the embedding.
      batch: rows of text in a batch.
      window: words of each row in a step.
      steps, eval_every: defaults of the task.

    Raises:
      TextError: a text that is too short.
    """
    found = words_in(text.replace("\r\n", "\n"))
    size = len(found) // 10
    parts = found[: -2 * size], found[-2 * size : -size], found[-size:]
    counts = Counter(parts[0])
    known = [word for word, count in counts.most_common() if count >= RAREST and word != UNKNOWN]
    vocabulary = WordVocabulary([UNKNOWN, *known])
    train, *others = map(vocabulary.encode_words, parts)

    def make_model(key: jax.Array) -> LanguageModel:
        rngs = nnx.Rngs(params=key)
        lstm = LSTM(hidden, hidden, weight_dropout=0.5, rngs=rngs)
        options: dict[str, Any] = dict(dropout=0.4, locked_dropout=True, embedding_dropout=0.1)
        return LanguageModel(len(vocabulary), lstm, tied=True, **options, rngs=rngs)

    names = ("validation", "test")
    return make_text_task(
        "words",
        make_model,
        Windows.of(train, batch, window),
        {n: Windows.of(c, batch, window, pad=True) for n, c in zip(names, others, strict=True)},
        steps=steps,
        eval_every=eval_every,
        settings=dict(hidden=hidden, batch=batch, window=window, words=len(vocabulary)),
    )


class _Losses(NamedTuple):
    """Validation loss at its best, and the test loss there; infinite if there is none."""

    validation: float
    test: float


def _best_losses(trial: TrialRecords) -> _Losses:
    rows = [row for row in trial.evaluations if None not in (row["validation"], row["test"])]
    if trial.diverged or not rows:
        return _Losses(math.inf, math.inf)
    best = min(rows, key=lambda row: row["validation"])
    return _Losses(best["validation"], best["test"])
