"""The tables of studies in the docs are those of their records."""

import math
import re
from collections import Counter

import pytest
from write_tables import DOCS, PLACE, pages, with_tables

from lstm_optax.reproductions import compare_with_published
from lstm_optax.studies import read_study, summarize

RECORDS = sorted(DOCS.glob("records/*/records.jsonl"))
each_study = pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)


def need_analysis(text: str) -> None:
    """Skip if the text names records whose analysis needs an extra that is not installed."""
    if "greff_2017" in text:
        pytest.importorskip("optuna", reason="needs pip install 'lstm_optax[optuna]'")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_page_has_tables_of_records(page):
    text = page.read_text("utf-8")
    need_analysis(text)
    assert with_tables(text) == text, "rewrite it: python tests/studies/write_tables.py"


def test_every_study_is_on_a_page():
    used = {place[1] for page in pages() for place in PLACE.findall(page.read_text("utf-8"))}
    assert used == {f"records/{path.parent.name}" for path in RECORDS}


@each_study
def test_published_study_is_complete(path):
    need_analysis(path.parent.name)
    study = read_study(path.parent)
    if study.study["kind"] == "reproduce":
        assert study.trials and all(trial.end for trial in study.trials.values())
        found = compare_with_published(study)
        assert found and not any(math.isnan(number.ours.low) for number in found)
        assert all(n.agrees is not None for n in found if n.published is not None)
        return
    assert study.choices and not any(choice["void"] for choice in study.choices.values())
    if study.study["kind"] == "compare":
        assert all(row.void is None and len(row.seeds) >= 5 for row in summarize(study))
    else:
        seeds = Counter(str(trial.hyper) for trial in study.trials.values() if trial.end)
        assert min(seeds.values()) >= 3


@each_study
def test_published_study_can_be_repeated(path):
    study = read_study(path.parent).study
    made_by = study["made_by"]
    assert re.fullmatch("[0-9a-f]{40}", made_by["commit"] or ""), "run it from a clean commit"
    made = rf"lstm-optax {study['kind']} |python tests/studies/study_\w+\.py "
    assert re.match(made, made_by["command"])
    assert not re.search(r"[ =]([/~]|\w:\\)", made_by["command"]), "name a relative folder"
