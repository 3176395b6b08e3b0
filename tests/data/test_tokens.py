"""Vocabularies of bytes and words, and how texts in pieces become words."""

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_optax.data import ByteVocabulary, TextError, Vocabulary, WordVocabulary
from lstm_optax.data import tokens as tokens_module
from lstm_optax.data.count_tokens import count_words
from lstm_optax.data.tokens import vocabulary_of, word_pieces, words_in

TEXT = "the cat sat\n\n the  dog\tsat \nthe end"


def pieces_of(text: str, sizes: list[int]) -> list[str]:
    """Cut a text after each size, and at its end."""
    ends = [0, *(min(end, len(text)) for end in accumulate(sizes)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def test_line_end_is_a_word():
    words = ["the", "cat", "sat", "<eos>", "<eos>", "the", "dog", "sat", "<eos>", "the", "end"]
    assert words_in(TEXT) == words


@given(st.text("ab \n", max_size=60))
def test_words_are_those_of_pytorch(text):
    """The reading of PyTorch's word language model: the words of each line, then <eos>."""
    lines = [*text.split("\n")[:-1]]
    expected = [word for line in lines for word in [*line.split(), "<eos>"]]
    assert words_in("\n".join([*lines, ""])) == expected


@given(st.text("ab \n\t", max_size=60), st.lists(st.integers(0, 9), max_size=12))
def test_pieces_have_the_words_of_the_text(text, sizes):
    found = [word for words in word_pieces(pieces_of(text, sizes)) for word in words]
    assert found == words_in(text)


def test_endless_word_is_rejected(monkeypatch):
    monkeypatch.setattr(tokens_module, "LONGEST", 10)
    with pytest.raises(TextError, match="has 12 characters without white space, too many for a"):
        list(word_pieces(["a b", "c" * 5, "d" * 6, "e"]))


def test_words_decode_to_lines():
    vocabulary = WordVocabulary(["<unk>", "<eos>", "the", "cat", "sat"])
    codes = vocabulary.encode(TEXT)
    np.testing.assert_array_equal(codes, [2, 3, 4, 1, 1, 2, 0, 4, 1, 2, 0])
    assert codes.dtype == np.int32
    assert vocabulary.decode(codes) == "the cat sat\n\nthe <unk> sat\nthe <unk>"
    assert vocabulary.encode("").shape == (0,)


@given(st.text())
def test_bytes_decode_to_their_text(text):
    vocabulary = ByteVocabulary()
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is in no file
    np.testing.assert_array_equal(vocabulary.encode(text), list(data))
    assert vocabulary.decode(vocabulary.encode(text)) == text and len(vocabulary) == 256


def test_torn_bytes_decode():
    assert ByteVocabulary().decode(np.frombuffer("aé".encode()[:-1], np.uint8)) == "a\ufffd"


@pytest.mark.parametrize(
    "words, fault",
    [
        (["the", "<unk>"], "the first must be <unk>"),
        (["<unk>", "a", "a"], "words must be distinct"),
        (["<unk>", "a b"], "words holds something that is not a word"),
        (["<unk>", ""], "words holds something that is not a word"),
        (["<unk>", 3], "words holds something that is not a word"),
        (["<unk>"], "the text has no words"),
    ],
)
def test_words_reject_what_is_no_vocabulary(words, fault):
    with pytest.raises(ValueError, match=fault):
        WordVocabulary(words)


def test_content_restores_vocabulary():
    for kind, vocabulary in {
        "characters": Vocabulary.of("cat\n"),
        "bytes": ByteVocabulary(),
        "words": WordVocabulary(["<unk>", "cat"]),
    }.items():
        restored = vocabulary_of(kind, vocabulary.content)
        assert type(restored) is type(vocabulary) and restored.content == vocabulary.content
    with pytest.raises(ValueError, match="'abc' is no vocabulary of words"):
        vocabulary_of("words", "abc")
    with pytest.raises(ValueError, match="is no vocabulary of letters"):
        vocabulary_of("letters", "abc")


def test_word_counts_are_exact_up_to_the_limit():
    pieces = [["a", "b", "a"], ["c", "a", "b"], ["d"]]
    assert count_words(pieces, most=4) == {"a": 3, "b": 2, "c": 1, "d": 1}


def test_counting_words_is_bounded():
    assert count_words([["a", "a", "b", "c"]], most=2) == {"a": 2}  # no more than is needed
    rare = [[f"word{n}" for n in range(start, start + 20)] for start in range(0, 2000, 20)]
    counts = count_words(([*words, "the", "the", "the"] for words in rare), most=30)
    assert len(counts) <= 30 and counts["the"] == 300
