"""The page of a report in headless Chromium: sort, hide a curve, change the colours, no errors."""

import importlib.util
import json

import numpy as np
import pytest
from chromium import draw_all, find_browser, open_page
from made_records import made_study, write_study

from lstm_optax.report import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None,
        reason="needs playwright: pip install 'lstm_optax[browser]'",
    ),
]
ODD = "<b>mine</b>'\"</script>"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with all kinds of charts except trajectories."""
    folder = tmp_path_factory.mktemp("study")
    names = {"sgd": 1e-1, "adam": 1e-2, "nadam": 1e-3, ODD: 1e-2}
    other = {"b1": (0.9, 0.95), "b2": (0.999, 0.99)}
    write_study(folder, made_study(optimizers=names, other=other))
    norms = np.geomspace(1e-6, 1, 12).tolist()
    rows = [{"step": step, "h": [norms], "reach": [norms]} for step in (0, 10, 20)]
    (folder / "gradients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_report(folder)


@pytest.fixture
def page(report):
    with open_page(report, viewport=DESKTOP) as page:
        yield page
        assert page.problems == []


def column(page, place):
    cells = page.locator("#comparison tbody tr").all()
    return [row.locator("th, td").nth(place).get_attribute("data-value") for row in cells]


def test_all_charts_are_drawn(page):
    draw_all(page)
    assert page.locator(".chart svg.marks").count() == 15
    assert page.get_by_text("could not be drawn").count() == 0
    for chart in page.locator(".chart").all():
        assert len(chart.get_attribute("aria-label")) > 40


@pytest.mark.parametrize("by_key", [False, True], ids=["click", "key"])
def test_table_sorts(page, by_key):
    header = page.locator("#comparison thead th").nth(2)  # hyper-parameters, learning rate first

    def press():
        if by_key:
            header.locator("button").focus()
            page.keyboard.press("Enter")
        else:
            header.locator("button").click()

    press()
    rates = [float(value) for value in column(page, 2) if value]
    assert rates == sorted(rates) and header.get_attribute("aria-sort") == "ascending"
    assert column(page, 2)[-1] is None  # the baseline
    press()
    assert [float(value) for value in column(page, 2) if value] == rates[::-1]
    assert header.get_attribute("aria-sort") == "descending"
    assert column(page, 2)[-1] is None
    page.locator("#comparison thead th button").first.click()
    assert column(page, 0)[0] == ODD
    assert header.get_attribute("aria-sort") == "none"


@pytest.mark.parametrize("name", ["nadam", ODD])
def test_legend_hides_curve(page, name):
    draw_all(page)
    lines = page.locator("#metric_against_steps .mark-line path")
    assert lines.count() == 4
    key = page.get_by_role("button", name=name, exact=True)
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    page.wait_for_function(
        "document.querySelectorAll('#metric_against_steps .mark-line path').length === 3"
    )
    key.focus()
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelectorAll('#metric_against_steps .mark-line path').length === 4"
    )


def test_legend_holds_for_later_charts(page):
    page.get_by_role("button", name="Hide all").click()
    page.get_by_role("button", name="adam", exact=True).click()
    draw_all(page)
    assert page.locator("#response_spike .mark-line path").count() == 1


def test_button_changes_colours(page):
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(color) != light
    draw_all(page)
    label = page.locator("#metric_against_steps .role-axis-label text").first
    red = label.evaluate("text => Number(getComputedStyle(text).fill.match(/\\d+/)[0])")
    assert red > 128  # light text
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(color) == light


def test_page_follows_system_colours(report):
    color = "getComputedStyle(document.body).backgroundColor"
    with open_page(report, color_scheme="dark") as page:
        assert page.evaluate(color) == "rgb(15, 20, 25)"
        page.get_by_role("button", name="Light colours").click()
        assert page.evaluate(color) == "rgb(247, 248, 250)"


def test_phone_needs_no_sideways_scroll(report):
    with open_page(report, viewport=PHONE) as page:
        draw_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for chart in page.locator(".chart svg.marks").all():
            assert chart.bounding_box()["width"] <= PHONE["width"]
        assert page.problems == []
