"""The tables of comparisons in the docs are those of their records."""

import pytest
from write_tables import DOCS, PLACE, pages, with_tables

from lstm_optax.studies import read_study, summarize


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_page_has_tables_of_records(page):
    text = page.read_text("utf-8")
    assert with_tables(text) == text, "rewrite it: python tests/studies/write_tables.py"


def test_every_study_is_on_a_page():
    used = {place[1] for page in pages() for place in PLACE.findall(page.read_text("utf-8"))}
    assert used == {f"records/{path.parent.name}" for path in DOCS.glob("records/*/records.jsonl")}


@pytest.mark.parametrize("path", sorted(DOCS.glob("records/*/records.jsonl")))
def test_published_study_is_complete(path):
    study = read_study(path.parent)
    assert all(row.void is None and len(row.seeds) >= 5 for row in summarize(study))
    made_by = study.study["made_by"]
    assert made_by["commit"] and made_by["command"].startswith("lstm-optax compare ")
