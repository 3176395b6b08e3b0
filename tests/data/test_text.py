"""Texts, vocabularies and contiguous windows."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lstm_optax.data import TextError, Vocabulary, Windows, read_text, split, topics_text

PROPERTY = settings(deadline=None, derandomize=True, max_examples=200)
CHARACTERS = "ab\n\0 ?é–\ud800\uffff🐍\U0010ffff"
TEXTS = st.text(CHARACTERS, min_size=2, max_size=40).filter(lambda text: len(set(text)) >= 2)
SIZES = st.integers(1, 7)


def ramp(length):
    """Return codes equal to their index, so that a misplaced code is visible."""
    return np.arange(length, dtype=np.int32)


def one_pass(windows):
    """Return inputs and targets of one pass, [B, all steps], the windows joined along time."""
    batches = [windows(p) for p in range(len(windows))]
    return tuple(np.concatenate([batch[i] for batch in batches]).T for i in (0, 1))


# Corpora


def test_topics_are_sorted_ascii_lines():
    from pydoc_data.topics import topics

    text = topics_text()
    keys = sorted(topics)
    assert text.isascii() and "\0" not in text and "\r" not in text
    assert len(text) == sum(map(len, topics.values())) + len(topics) - 1
    first, last = (re.sub(r"[^\x00-\x7f]", "?", topics[key]) for key in (keys[0], keys[-1]))
    assert text.startswith(first + "\n") and text.endswith("\n" + last)


def test_topics_replace_non_ascii_characters(monkeypatch):
    import pydoc_data.topics

    monkeypatch.setattr(pydoc_data.topics, "topics", {"b": "10 °C…", "a": "naïve 🐍"})
    assert topics_text() == "na?ve ?\n10 ?C?"


def test_topics_text_rejects_missing_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(TextError, match=r"no pydoc_data\.topics.*read_text\(path\)"):
        topics_text()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        (b"\xef\xbb\xbfab", "ab"),
        ("naïve 🐍\n".encode(), "naïve 🐍\n"),
        (b" a ", " a "),
    ],
)
def test_read_text_normalises_newlines_and_mark(tmp_path, data, text):
    (tmp_path / "file").write_bytes(data)
    assert read_text(tmp_path / "file") == text
    assert read_text(str(tmp_path / "file")) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: name a file"),
        (b" \n\t\r\n", "is empty: name a file"),
        (b"\xef\xbb\xbf", "is empty: name a file"),
        (b"ab\0cd", r"is binary \(NUL at byte 2\)"),
        ("ab".encode("utf-16"), r"is not UTF-8 \(at byte 0\); its bytes fit utf_16 \('ab'\)"),
        (b"caf\xe9!", r"is not UTF-8 \(at byte 3\); its bytes fit cp1252 \('café!'\)"),
    ],
)
def test_read_text_rejects_empty_and_binary_files(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(TextError, match=message) as caught:
        read_text(tmp_path / "file")
    assert str(caught.value).startswith(str(tmp_path / "file"))


def test_read_text_rejects_missing_file_and_folder(tmp_path):
    with pytest.raises(TextError, match="absent does not exist: check"):
        read_text(tmp_path / "absent")
    with pytest.raises(TextError, match="is a folder: name one"):
        read_text(tmp_path)


def test_read_text_rejects_unreadable_file(tmp_path, monkeypatch):
    def deny(self, mode):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "file").write_bytes(b"ab")
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(TextError, match=r"cannot be read \(Permission denied\): check its"):
        read_text(tmp_path / "file")


# Vocabulary


@PROPERTY
@given(TEXTS)
def test_decode_inverts_encode(text):
    vocabulary = Vocabulary.of(text)
    codes = vocabulary.encode(text)
    assert codes.dtype == np.int32 and codes.shape == (len(text),)
    assert vocabulary.decode(codes) == text


@PROPERTY
@given(TEXTS)
def test_code_is_index_in_sorted_characters(text):
    vocabulary = Vocabulary.of(text)
    assert vocabulary.characters == tuple(sorted(set(text)))
    assert len(vocabulary) == len(set(text))
    np.testing.assert_array_equal(
        vocabulary.encode(text), [vocabulary.characters.index(c) for c in text]
    )


@PROPERTY
@given(TEXTS, st.text(CHARACTERS + "xyz", min_size=1, max_size=4))
def test_encode_names_unknown_characters(text, other):
    vocabulary = Vocabulary.of(text)
    unknown = sorted(set(other) - set(text))
    assume(0 < len(unknown) <= 5)
    with pytest.raises(TextError) as caught:
        vocabulary.encode(text + other)
    assert str(caught.value).startswith(", ".join(map(repr, unknown)))


def test_encode_names_at_most_five_characters():
    with pytest.raises(TextError, match=r"^'c', 'd', 'e', 'f', 'g' and 2 more are in the text"):
        Vocabulary.of("ab").encode("hgfedcabi")
    with pytest.raises(TextError, match=r"^'c' is in the text, not in the vocabulary of 2: "):
        Vocabulary.of("ab").encode("abccc")


def test_empty_text_has_no_codes():
    vocabulary = Vocabulary.of("ab")
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary.decode(np.array([], np.int32)) == ""


@pytest.mark.parametrize("code", [-1, 2])
def test_decode_rejects_codes_out_of_range(code):
    with pytest.raises(ValueError, match=r"not 0 … 1"):
        Vocabulary.of("ab").decode(np.array([0, code]))


@pytest.mark.parametrize("text", ["", "aaaa"])
def test_vocabulary_rejects_one_character(text):
    with pytest.raises(TextError, match=f"has {len(set(text))} distinct characters"):
        Vocabulary.of(text)


@pytest.mark.parametrize("characters", [("b", "a"), ("a", "a", "b"), ("a", "bc"), ("", "a")])
def test_vocabulary_rejects_unsorted_or_repeated_characters(characters):
    with pytest.raises(ValueError, match=r"use .*of\(text\)"):
        Vocabulary(characters)


# Split


def test_split_validates_on_last_part():
    train, validation = split(ramp(100))
    np.testing.assert_array_equal(train, range(90))
    np.testing.assert_array_equal(validation, range(90, 100))
    assert len(split(ramp(100), 0.25)[1]) == 25
    train, validation = split(ramp(100), 30)
    np.testing.assert_array_equal(train, range(70))
    np.testing.assert_array_equal(validation, range(70, 100))


@pytest.mark.parametrize(
    ("length", "share"),
    [(10, 0.1), (3, 0.5), (0, 0.5), (10, 0.9), (10, 1), (10, 9), (10, -3), (10, 11)],
)
def test_split_rejects_short_parts(length, share):
    with pytest.raises(TextError, match=f"{length} characters split into .*longer text"):
        split(ramp(length), share)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_split_rejects_share_out_of_range(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(ramp(100), share)


# Windows


def test_windows_of_small_text_by_hand():
    windows = Windows.of(ramp(14), batch=2, window=3)  # 13 pairs, rows of 6
    assert len(windows) == 2
    np.testing.assert_array_equal(windows(0).inputs, [[0, 6], [1, 7], [2, 8]])
    np.testing.assert_array_equal(windows(1).inputs, [[3, 9], [4, 10], [5, 11]])
    np.testing.assert_array_equal(windows(1).targets, [[4, 10], [5, 11], [6, 12]])
    padded = Windows.of(ramp(6), batch=2, window=2, pad=True)  # 5 pairs, rows of 3
    inputs, targets = one_pass(padded)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 0], [3, 4, 0, 0]])
    np.testing.assert_array_equal(targets, [[1, 2, 3, -1], [4, 5, -1, -1]])


@PROPERTY
@given(st.integers(2, 120), SIZES, SIZES)
def test_padded_windows_have_each_target_once(length, batch, window):
    windows = Windows.of(ramp(length), batch, window, pad=True)
    inputs, targets = one_pass(windows)
    real = targets >= 0
    np.testing.assert_array_equal(targets[real], range(1, length))  # row after row
    np.testing.assert_array_equal(inputs[real], range(length - 1))
    assert (targets[~real] == -1).all() and (inputs[~real] == 0).all()
    assert (~real).sum() == batch * window * len(windows) - (length - 1)
    longest_row = -(-(length - 1) // batch)
    assert len(windows) == -(-longest_row // window)


@PROPERTY
@given(st.integers(2, 120), SIZES, SIZES)
def test_training_windows_drop_only_remainder(length, batch, window):
    assume(length > batch * window)
    windows = Windows.of(ramp(length), batch, window)
    inputs, targets = one_pass(windows)
    assert (np.diff(inputs, axis=1) == 1).all()
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(inputs[:, 0], np.arange(batch) * ((length - 1) // batch))
    assert (length - 1) // batch - inputs.shape[1] < window


@PROPERTY
@given(st.integers(20, 120), st.booleans(), st.integers(0, 10**12))
def test_window_depends_only_on_position(length, pad, p):
    codes = ramp(length)
    windows = Windows.of(codes, 3, 4, pad=pad)
    batch = windows(p)
    windows((p * 7 + 3) % 100)
    for other in (windows(p), windows(p % len(windows)), Windows.of(codes, 3, 4, pad=pad)(p)):
        for mine, its in zip(batch, other, strict=True):
            np.testing.assert_array_equal(mine, its)
    first = p % len(windows) == 0
    assert batch.resets[0].tolist() == [first] * 3 and not batch.resets[1:].any()


@pytest.mark.parametrize("pad", [False, True])
def test_batch_has_documented_shapes_and_dtypes(pad):
    windows = Windows.of(ramp(100).astype(np.int64), 3, 5, pad=pad)
    for p in range(len(windows)):
        batch = windows(p)
        assert [array.shape for array in batch[:3]] == [(5, 3)] * 3 and batch.lengths is None
        assert [array.dtype for array in batch[:3]] == [np.int32, np.int32, np.bool_]


def test_batch_arrays_are_read_only():
    batch = Windows.of(ramp(100), 3, 5)(0)
    with pytest.raises(ValueError, match="read-only"):
        batch.inputs[0, 0] = 7


def test_windows_reject_text_below_one_window():
    assert len(Windows.of(ramp(13), 3, 4)) == 1
    with pytest.raises(TextError, match=r"has 12 tokens, batch 3 × window 4 needs 13: .*`batch`"):
        Windows.of(ramp(12), 3, 4)
    assert len(Windows.of(ramp(2), 3, 4, pad=True)) == 1
    with pytest.raises(TextError, match="has 1 tokens, .* needs 2: .*`window`, or a longer"):
        Windows.of(ramp(1), 3, 4, pad=True)


@pytest.mark.parametrize(("batch", "window"), [(0, 1), (1, 0), (-1, 5)])
def test_windows_reject_sizes_below_one(batch, window):
    with pytest.raises(ValueError, match="is (0|-1), but must be a whole number of at least 1"):
        Windows.of(ramp(100), batch, window)


def test_windows_reject_negative_position():
    with pytest.raises(
        ValueError, match="position is -1, but must be a whole number of at least 0"
    ):
        Windows.of(ramp(100), 3, 4)(-1)


@pytest.mark.parametrize("position", [float("inf"), float("nan"), 1.0, "1", None])
def test_windows_reject_non_integers(position):
    with pytest.raises(ValueError, match="^position is .*, but must be a whole number"):
        Windows.of(ramp(100), 3, 4)(position)
    with pytest.raises(ValueError, match="^window is .*, but must be a whole number"):
        Windows.of(ramp(100), 3, position)


def test_iteration_is_one_pass():
    windows = Windows.of(np.arange(50, dtype=np.int32), 2, 5)
    passed = list(windows)
    assert len(passed) == len(windows)
    for p, batch in enumerate(passed):
        np.testing.assert_array_equal(batch.inputs, windows(p).inputs)
        np.testing.assert_array_equal(batch.resets, windows(p).resets)


def test_decode_rejects_two_axes():
    with pytest.raises(ValueError, match=r"codes have shape \(2, 2\), not \[N\]"):
        Vocabulary.of("ab").decode(np.zeros((2, 2), int))
