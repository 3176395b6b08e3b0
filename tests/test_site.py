"""The built site in headless Chromium: widths, console, requests, links, search."""

import importlib.util
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from chromium import find_browser

DOCS = Path(__file__).parents[1] / "docs"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
READ_PAGE = """() => ({
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  anchors: [...document.querySelectorAll('[id]')].map(e => e.id),
})"""
TOO_WIDE = """() => {  // what reaches beyond the window, except inside of what scrolls by itself
  const width = document.documentElement.clientWidth;
  const scrolls = e => e && e.localName !== 'article' &&
    (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll('article *')].find(
    e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  if (wide) return wide.outerHTML.slice(0, 200);
  return document.documentElement.scrollWidth > width ? 'the page' : null;
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None or importlib.util.find_spec("furo") is None,
        reason="needs playwright and furo: pip install 'lstm_optax[browser,docs]'",
    ),
]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, served from this machine, and its folder."""
    folder = Path(os.environ.get("LSTM_OPTAX_SITE") or tmp_path_factory.mktemp("site"))
    if "LSTM_OPTAX_SITE" not in os.environ:
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(folder)]
        subprocess.run(command, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(site):
    """A page of a browser; `problems` are errors of its console and requests to elsewhere."""
    from playwright.sync_api import sync_playwright

    address, _ = site
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        context = browser.new_context(viewport=DESKTOP)
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = context.new_page()

        def note(problem):
            problems.append(f"{page.url}: {problem}")

        page.on("console", lambda message: message.type == "error" and note(message.text))
        page.on("pageerror", note)
        page.on("request", lambda r: r.url.startswith((address, "data:")) or note(r.url))
        page.on("response", lambda r: r.status >= 400 and note(f"{r.status} {r.url}"))
        page.problems = problems
        yield page
        browser.close()


def read_pages(address, folder, page):
    """What each page contains: its links and anchors, and the first thing that is too wide."""
    found = {}
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        page.goto(address + name, wait_until="load")
        found[name] = page.evaluate(READ_PAGE) | {"desktop": page.evaluate(TOO_WIDE)}
        page.set_viewport_size(PHONE)
        found[name]["phone"] = page.evaluate(TOO_WIDE)
        page.set_viewport_size(DESKTOP)
    return found


def broken_links(address, folder, pages):
    """The links inside the site whose page, file or anchor does not exist."""
    for name, found in pages.items():
        for link in sorted(set(found["links"])):
            target, anchor = urldefrag(link)
            if not target.startswith(address):
                continue
            path = unquote(target.removeprefix(address)) or "index.html"
            anchors = pages[path]["anchors"] if path in pages else ()
            if not (folder / path).is_file() or (anchor and unquote(anchor) not in anchors):
                yield f"{name}: {link}"


def test_pages_are_whole(site, page):
    """One test, so that each page is opened once."""
    pages = read_pages(*site, page)
    widths = [(name, width) for name in pages for width in ("desktop", "phone")]
    problems = [f"{n}, {w}: too wide: {pages[n][w]}" for n, w in widths if pages[n][w]]
    problems += [f"broken link in {link}" for link in broken_links(*site, pages)]
    problems += page.problems
    assert not problems, "\n".join(problems)
    assert len(pages) >= len(list(DOCS.glob("*.md"))) > 40


def test_search_finds_nadam(site, page):
    address, _ = site
    page.goto(address + "index.html")
    page.get_by_placeholder("Search").first.fill("nadam")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    links = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("api.html#lstm_optax.nadam" in link for link in links), links
    assert page.problems == []


def test_code_can_be_copied(site, page):
    address, _ = site
    page.goto(address + "getting_started.html")
    shown = page.locator("div.highlight").count()
    assert shown == page.locator("button.copybtn").count() > 5


def test_formulas_are_drawn(site, page):
    """As MathML with a width, without a script."""
    address, _ = site
    page.goto(address + "lstm.html")
    widths = page.eval_on_selector_all(
        "math", "all => all.map(formula => formula.getBoundingClientRect().width)"
    )
    assert len(widths) > 5 and min(widths) > 3
