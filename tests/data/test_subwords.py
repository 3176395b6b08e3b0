"""Subwords of the package tokenizers: lossless, learned from the training part, read in pieces."""

import builtins
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_optax.data import TextError, prepare_tokens, read_text, read_tokens, text_file
from lstm_optax.data.subwords import SubwordVocabulary, line_pieces

pytest.importorskip("tokenizers")
TEXT = "the lower the newer, the lowest  the newest;\nthe wïdest\n\n" * 12


@pytest.fixture(scope="module")
def vocabulary() -> SubwordVocabulary:
    return SubwordVocabulary.learn([TEXT], 270)


@given(st.lists(st.text("ab\n", max_size=9), max_size=9), st.integers(1, 20))
def test_line_pieces_end_with_lines(pieces, longest):
    found = list(line_pieces(pieces, longest))
    assert "".join(found) == "".join(pieces)
    assert all(p == "" or p.endswith("\n") or len(p) > longest - 9 for p in found[:-1])


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_decoded(vocabulary, text):
    codes = vocabulary.encode(text)
    assert codes.dtype == np.int32 and vocabulary.decode(codes) == text


def test_frequent_words_are_one_subword(vocabulary):
    assert len(vocabulary) == 270
    assert len(vocabulary.encode(" the")) == 1 < len(vocabulary.encode(" xyz"))


def test_prepared_subwords_equal_those_of_whole_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "CHUNK", 7)
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    prepare_tokens([path], tmp_path / "out", kind="subwords", vocabulary=270)
    prepared = read_tokens(tmp_path / "out")
    codes = np.concatenate([part[:] for part in prepared.parts.values()])
    np.testing.assert_array_equal(codes, prepared.vocabulary.encode(read_text(path)))
    assert prepared.vocabulary.decode(codes) == TEXT and len(prepared.vocabulary) == 270
    stored = json.loads((tmp_path / "out" / "vocabulary.json").read_text(encoding="utf-8"))
    assert stored["model"]["type"] == "BPE"  # which the package itself reads


def test_subwords_are_learned_from_training_part(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("aaaa bbbb\n" * 30 + "zzzz\n" * 20)
    options = dict(kind="subwords", vocabulary=260, shares=(0.6, 0.4, 0.0))
    vocabulary = prepare_tokens([path], tmp_path / "out", **options).vocabulary
    assert len(vocabulary.encode("zzzz")) == 4 > len(vocabulary.encode("aaaa"))


def test_too_few_subwords_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="`vocabulary` is 256, but .* of at least 257"):
        prepare_tokens([tmp_path / "none"], tmp_path / "out", kind="subwords", vocabulary=256)


def test_other_content_is_rejected():
    with pytest.raises(ValueError, match="not a content of the package tokenizers"):
        SubwordVocabulary({"model": 3})


def test_missing_package_is_named(tmp_path, monkeypatch):
    def find(name, *args, **options):
        if name == "tokenizers":
            raise ImportError(name)
        return importing(name, *args, **options)

    importing = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", find)
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(TextError, match=r"pip install 'lstm_optax\[subwords\]'"):
        prepare_tokens([tmp_path / "text.txt"], tmp_path / "out", kind="subwords")
    assert not (tmp_path / "out").exists()
