"""The README: its length, and its links, which the package index shows without the repository."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.S | re.M)
TARGETS = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", PROSE, re.M))


def test_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


def test_links_are_defined_and_used():
    used = {b or a for a, b in re.findall(r"\[([^\[\]]+)\](?:\[([^\[\]]+)\])?(?![:(\]])", PROSE)}
    assert used == set(TARGETS)


def test_links_work_without_repository():
    inline = re.findall(r"\]\((\S+?)\)", PROSE)
    assert inline and all(url.startswith("https://") for url in [*inline, *TARGETS.values()])


def test_linked_files_exist():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = settings["project"]["urls"]["Repository"]
    raw = address.replace("github.com", "raw.githubusercontent.com")
    prefixes = (f"{address}/blob/main/", f"{raw}/main/")
    for url in TARGETS.values():
        (path,) = [url.removeprefix(prefix) for prefix in prefixes if url.startswith(prefix)]
        assert (ROOT / path).is_file(), url
