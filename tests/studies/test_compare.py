"""`compare`: equal budgets, separate seeds, the report at the chosen setting."""

import pytest
from quadratic import assert_same_rows, fit_records, make_task, without_seconds

import lstm_optax as lo
from lstm_optax.studies import StudyError, compare
from lstm_optax.studies.trial import TUNING_SEED

RATES = {"learning_rate": (0.03, 0.1, 0.3)}
PAIR = {"one": lo.sgd, "two": lo.adam}
GRIDS = {"one": RATES, "two": RATES}


def plain_compare(optimizers=PAIR, grids=GRIDS, **options):
    return compare(make_task(), optimizers, grids=grids, **options)


def test_report_uses_tuning_seeds_or_settings():
    result = plain_compare(tuning_seeds=2, seeds=4)
    assert result.traces == {"one": 1, "two": 1}
    assert list(result.records.choices) == ["one", "two"]
    for name, choice in result.records.choices.items():
        trials = [t for t in result.records.trials.values() if t.optimizer == name]
        tuning = [trial for trial in trials if trial.part == "tuning"]
        report = [trial for trial in trials if trial.part == "report"]
        assert {trial.seed for trial in tuning} == {TUNING_SEED, TUNING_SEED + 1}
        assert [trial.seed for trial in report] == [0, 1, 2, 3]
        assert all(trial.hyper == choice["hyper"] for trial in report)
        assert len(tuning) == choice["trials"] >= 6
        assert all(trial.end["status"] == "finished" for trial in report)
    rate = result.records.choices["two"]["hyper"]["learning_rate"]
    found = result.records.trials[f"two learning_rate={rate:g} seed=3"]
    assert_same_rows(found.evaluations, fit_records(lo.adam(rate), 3))


@pytest.mark.slow
def test_selection_reads_the_test_metric():
    def evaluate(params):
        found = make_task().evaluate(params)
        return {"validation": found["validation"], "test": -found["validation"]}

    task = make_task(evaluate=evaluate)
    options = dict(grids=GRIDS, extensions=0)
    found, expected = (compare(t, PAIR, **options) for t in (task, make_task()))
    assert found.records.choices == expected.records.choices


@pytest.mark.slow
def test_void_choice_is_not_reported():
    grids = {"one": {"learning_rate": (1e-5, 1e-4)}, "two": {"learning_rate": (1e12, 1e13)}}
    optimizers = {"one": lo.sgd, "two": lo.sgd}
    result = plain_compare(optimizers, grids, extensions=1, seeds=3)
    one, two = result.records.choices.values()
    assert one["void"] and one["edge"] in ("low", "high") and one["hyper"]
    assert two["void"] and two["hyper"] == {} and two["value"] is None
    report = [t.optimizer for t in result.records.trials.values() if t.part == "report"]
    assert report == 3 * ["one"], "no trial is reported without a setting"


@pytest.mark.slow
def test_interrupted_comparison_differs(tmp_path):
    whole = plain_compare(seeds=3, extensions=0)
    for after in (8, 25):
        seen = []

        def interrupt(trial, record, seen=seen, after=after):
            seen.append(trial)
            if len(seen) == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            options = dict(seeds=3, extensions=0, out=tmp_path)
            plain_compare(**options, on_evaluation=interrupt)
    result = plain_compare(seeds=3, extensions=0, out=tmp_path)
    for name, trial in whole.records.trials.items():
        other = result.records.trials[name]
        found, expected = ([t.evaluations, t.end] for t in (other, trial))
        assert without_seconds(found) == without_seconds(expected)
    assert without_seconds(result.records.choices) == without_seconds(whole.records.choices)
    before = (tmp_path / "records.jsonl").read_bytes()
    again = plain_compare(seeds=3, extensions=0, out=tmp_path)
    assert again.traces == {"one": 0, "two": 0}
    assert (tmp_path / "records.jsonl").read_bytes() == before
    with pytest.raises(StudyError, match="but this one has {'one': 'sgd', 'two': 'a function'}"):
        plain_compare({"one": "sgd", "two": lo.adam}, out=tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.slow
def test_named_optimizers_share_no_settings():
    settings = {"adam": {"b1": 0.5}}
    grids = {"adam": RATES, "nadam": RATES}
    options = dict(settings=settings, schedule="constant", clip=0.0, extensions=0, seeds=3)
    result = plain_compare(["adam", "nadam"], grids, **options)
    expected = {"adam": lo.adam(0.1, b1=0.5), "nadam": lo.nadam(0.1)}
    for name, optimizer in expected.items():
        found = result.records.trials[f"{name} learning_rate=0.1 seed=1000"]
        assert_same_rows(found.evaluations, fit_records(optimizer, 1000))


TWO_RATES = {"learning_rate": (0.1, 0.3)}
BAD = {
    "one": (dict(optimizers={"one": lo.sgd}), "compare needs at least two different optimizers, b"),
    "none": (dict(optimizers=[]), "compare needs at least two different optimizers, but got none"),
    "twice": (dict(optimizers=["sgd", "sgd"]), "compare needs .* optimizers, but got sgd$"),
    "seeds": (dict(seeds=2), "seeds is 2, but an interval needs at least 3 fresh seeds"),
    "many": (dict(seeds=1001), "seeds is 1001, but must be at most 1000: seeds from there on"),
    "grids": (
        dict(grids=GRIDS | {"three": RATES}),
        "grids has 'three', but the optimizers are one",
    ),
    "settings": (dict(settings={"on": {}}), "settings has 'on', but the optimizers are one, two"),
    "budget": (
        dict(grids={"one": RATES, "two": TWO_RATES}),
        r"the grids have different numbers of settings \(one 3, two 2\), but the budget must be",
    ),
    "more": (
        dict(grids={"one": RATES, "two": RATES | {"b1": (0.8, 0.9)}}),
        r"the grids have different numbers of settings \(one 3, two 6\)",
    ),
    "last": (
        dict(grids={"one": RATES, "two": RATES | {"b1": (1.5,)}}),
        "two does not accept learning_rate=0.03 b1=1.5: b1 is 1.5, but must be",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_comparison_is_accepted(name, tmp_path):
    changes, message = BAD[name]
    with pytest.raises(StudyError, match=f"^{message}"):
        plain_compare(**changes, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
