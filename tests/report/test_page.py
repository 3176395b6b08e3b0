"""The page of a report: what it shows, that it loads nothing, and that it escapes texts."""

import json
import re
from html.parser import HTMLParser

import pytest
from made_records import choice_record, made_study, read_made, write_study

from lstm_optax.report import write_report
from lstm_optax.report.page import render_page
from lstm_optax.report.write import make_content
from lstm_optax.studies import StudyError, read_study

ODD = '</script><b>"it\'s"&amp;'  # text that would break a page that does not escape it


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data

    def values(self, tag, attribute):
        return [found.get(attribute) for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def records():
    names = {"sgd": 1e-1, "adam": 1e-2, ODD: 1e-2, "void": 1e-4}
    return made_study(optimizers=names, rates=(1e-4, 1e-3, 1e-2, 1e-1), name=ODD)


@pytest.fixture(scope="module")
def page(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return Elements(render_page(make_content(read_made(folder, records), folder, responses=False)))


def test_page_shows_every_optimizer(page):
    for name in ("sgd", "adam", ODD, "void"):
        assert name in page.text
        assert name in page.values("button", "data-series")


def test_page_escapes_every_text(page):
    tags = {tag for tag, _ in page.elements}
    assert "b" not in tags
    assert f"on the task {ODD}" in page.text
    assert len(page.values("script", "type")) == 2 + len(page.values("figure", "id"))


def test_page_loads_nothing(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    policy = dict(
        zip(page.values("meta", "http-equiv"), page.values("meta", "content"), strict=True)
    )
    assert policy["Content-Security-Policy"].startswith("default-src 'none'")


def test_page_names_its_parts(page):
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", "result") in ids
    assert {href[1:] for href in page.values("a", "href")} <= ids
    assert page.values("html", "lang") == ["en"]
    assert [tag for tag, _ in page.elements].count("h1") == 1


def test_charts_describe_themselves(page):
    specs = [json.loads(text) for text in page.scripts if text.startswith("{")]
    assert len(specs) == 4
    for spec in specs:
        assert len(spec["description"]) > 40
        assert spec["width"] == "container"
        assert {"name": "hidden", "value": []} in spec["params"]


def test_headers_of_table_sort(page):
    headers = page.values("th", "aria-sort")
    assert headers.count("none") == 13
    assert "comparison" in page.values("table", "id")


def test_void_optimizer_is_not_ranked(page):
    assert "void: its best learning rate is at the low edge of the tried ones." in page.text


def test_page_names_command_and_versions(page):
    assert "lstm-optax compare --task made" in page.text
    assert "lstm_optax" in page.text and "3.11.0" in page.text


def test_headline_names_the_winner(records, tmp_path):
    content = make_content(read_made(tmp_path, records), tmp_path, responses=False)
    best = "adam is best beyond seed noise: 0.435 (0.427–0.443) (test at equal steps)."
    assert content.headline == best


def test_headline_of_ties(tmp_path):
    study = read_made(tmp_path, made_study(spacing=0.0))
    content = make_content(study, tmp_path, responses=False)
    assert content.headline.startswith("No optimizer is better than another beyond seed noise: ")
    assert all(f"{name} 0.4" in content.headline for name in ("sgd", "adam", "nadam"))


def test_headline_of_several_best(tmp_path):
    records = made_study(optimizers={"a": 1e-1, "b": 1e-1}, spacing=0.0)
    worse = made_study(optimizers={"other": 1e-1, "c": 1e-1}, spacing=0.5)
    records += [record for record in worse if str(record.get("trial", "")).startswith("c ")]
    records += [
        record for record in worse if record.get("optimizer") == "c" and "trial" not in record
    ]
    content = make_content(read_made(tmp_path, records), tmp_path, responses=False)
    assert content.headline.startswith("There is no single best optimizer: none is better than ")
    assert "a 0.4" in content.headline and "b 0.4" in content.headline
    assert "c 0" not in content.headline


def test_headline_names_the_best_setting(tmp_path):
    study = read_made(tmp_path, made_study("sweep", optimizers={"nadam": 1e-2}))
    content = make_content(study, tmp_path, responses=False)
    assert content.headline == "The best setting of nadam is 0.01: validation 0.4026."
    assert content.numbers["trials"] == "10" and content.numbers["diverged"] == "4"


def test_headline_of_void_sweep(tmp_path):
    records = made_study("sweep", optimizers={"nadam": 1e-2})
    records.append(choice_record("nadam", {"learning_rate": 1.0}, edge="high", void=True))
    content = make_content(read_made(tmp_path, records), tmp_path, responses=False)
    assert content.headline == "The tuning of nadam is void: it has no valid best setting."


def test_page_of_unfinished_study(records, tmp_path):
    started = [record for record in records if record["record"] in ("study", "optimizer")]
    study = read_made(tmp_path, [*started, *records[2:6]])
    content = make_content(study, tmp_path, responses=False)
    assert content.numbers["not finished"] == "1"
    assert content.headline.startswith("No optimizer has a rank")


def test_report_needs_records(tmp_path):
    with pytest.raises(StudyError, match=r"has no records\.jsonl: name the folder of a sweep"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_report_rejects_several_versions(tmp_path):
    records = made_study("sweep", optimizers={"nadam": 1e-2})
    other = json.loads(json.dumps(records[0]))
    other["made_by"]["versions"]["jax"] = "1"
    write_study(tmp_path, [*records, other])
    with pytest.raises(StudyError, match="records of 2 sets of package versions"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.slow
def test_report_writes_all_files(tmp_path):
    write_study(tmp_path, made_study(optimizers={"sgd": 1e-1, "my rule": 1e-2}))
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    names = {file.stem for file in (tmp_path / "plots").iterdir()}
    assert len(names) == 9 and "response_spike" in names
    for name in names:
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "plots" / f"{name}.svg").read_text().startswith("<svg")
    assert "| sgd | 1 |" in (tmp_path / "table.md").read_text()
    assert "the library has no such name: my rule." in path.read_text()


@pytest.mark.slow
def test_large_report_is_small(tmp_path):
    names = {f"optimizer {number}": 1e-2 for number in range(14)}
    records = made_study(optimizers=names, evaluations=110)
    assert sum(record["record"] == "evaluation" for record in records) > 20_000
    study = read_made(tmp_path, records)
    page = render_page(make_content(read_study(tmp_path), tmp_path, responses=False))
    assert len(page.encode()) < 5e6
    assert len(re.findall(r'<th scope="row"', page)) == 14 + len(study.study["task"]["baselines"])
