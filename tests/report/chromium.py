"""A page in headless Chromium that collects its errors and requests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def open_page(report: Path, **options: Any) -> Iterator[Any]:
    """Open a report from disk; `problems` of the page are its errors and network requests.

    Args:
      report: the page.
      options: of the browser's context, such as `viewport` and `color_scheme`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        try:
            page = browser.new_context(**options).new_page()
            problems: list[str] = []
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: _note_request(request.url, report, problems))
            page.goto(report.resolve().as_uri())
            page.problems = problems  # pyright: ignore[reportAttributeAccessIssue]
            yield page
        finally:
            browser.close()


def draw_all(page: Any) -> None:
    """Scroll to each chart, so that it is drawn, and wait for it."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        page.wait_for_function("place => 'drawn' in place.dataset", arg=chart.element_handle())


def _note_request(url: str, report: Path, problems: list[str]) -> None:
    if url != report.resolve().as_uri():
        problems.append(f"request: {url}")
