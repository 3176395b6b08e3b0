"""The table of reproductions: names, data files and their errors."""

import hashlib
from pathlib import Path

import pytest

from lstm_optax.reproductions import REPRODUCTIONS, DataFile, reproduce
from lstm_optax.reproductions.published import find_reproduction
from lstm_optax.studies import StudyError

PAGE = Path(__file__).parents[2] / "docs/reproduce.md"
FILE = DataFile("some text", hashlib.sha256(b"text").hexdigest(), "https://example.org")
NEEDS_FILE = [name for name, found in REPRODUCTIONS.items() if found.data]
EXPECTED = rf"expected some text \(SHA-256 {FILE.sha256}\): get it from https://example.org"


def test_unknown_name_lists_known_ones():
    with pytest.raises(
        StudyError, match="'deepobs-char'; the nearest is deepobs-char-rnn; there are"
    ):
        find_reproduction("deepobs-char")


def test_missing_data_names_source(tmp_path):
    with pytest.raises(StudyError, match="`data` is missing; pass the file with some text"):
        FILE.read(None)
    with pytest.raises(StudyError, match=f"there is no such file; {EXPECTED}"):
        FILE.read(tmp_path / "none.txt")


def test_other_data_is_refused(tmp_path):
    (tmp_path / "other.txt").write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(StudyError, match=f"has the SHA-256 {found}; {EXPECTED}"):
        FILE.read(tmp_path / "other.txt")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_does_not_count(tmp_path, mark):
    (tmp_path / "text.txt").write_bytes(mark + b"text")
    assert FILE.read(tmp_path / "text.txt") == b"text"


@pytest.mark.parametrize("name", NEEDS_FILE)
def test_reproduction_without_its_data_fails(name):
    with pytest.raises(StudyError, match=f"pass the file with .*{REPRODUCTIONS[name].data.sha256}"):
        reproduce(name)


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_docs_have_the_command(name):
    data = " --data " if REPRODUCTIONS[name].data else "\n"
    assert f"\nlstm-optax reproduce {name}{data}" in PAGE.read_text(encoding="utf-8")


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="seeds is 1"):
        reproduce(next(iter(REPRODUCTIONS)), seeds=1)
