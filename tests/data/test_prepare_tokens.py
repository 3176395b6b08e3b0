"""Token files: equal to the text in memory, written whole or not at all, and read on demand."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lstm_optax.data import (
    TextError,
    VaryingWindows,
    Vocabulary,
    Windows,
    prepare_tokens,
    read_text,
    read_tokens,
    text_file,
)

LINES = "The cât sat\r\non the mat;\rthe dog  sat on it.\n"


@pytest.fixture
def text(tmp_path, monkeypatch) -> Path:
    """Return a file that is read in pieces of 7 bytes, which cut characters and line ends."""
    monkeypatch.setattr(text_file, "CHUNK", 7)
    path = tmp_path / "text.txt"
    path.write_bytes((LINES * 20).encode())
    return path


def codes_of(prepared) -> np.ndarray:
    return np.concatenate([part[:] for part in prepared.parts.values()])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030"])
def test_tokens_equal_text_in_memory(text, tmp_path, encoding, keep):
    text.write_bytes((LINES.replace("â", "é") * 20).encode(encoding))
    options = dict(encoding=encoding, keep_line_ends=keep)
    prepared = prepare_tokens([text], tmp_path / "out", **options)
    whole = read_text(text, **options)
    assert ("\r\n" in whole) == ("\r" in whole) == keep
    assert prepared.vocabulary == Vocabulary.of(whole)
    assert prepared.vocabulary.decode(codes_of(prepared)) == whole


def test_bytes_are_unchanged(text, tmp_path):
    text.write_bytes(bytes(range(256)) * 3)
    prepared = prepare_tokens([text], tmp_path / "out", kind="bytes")
    assert codes_of(prepared).astype(np.uint8).tobytes() == text.read_bytes()
    assert (tmp_path / "out" / "tokens.bin").read_bytes() == text.read_bytes()


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.75, 0.25, 0.0)])
@pytest.mark.parametrize("kind", ["characters", "bytes", "words"])
def test_shares_cut_the_tokens(text, tmp_path, kind, shares):
    prepared = prepare_tokens([text], tmp_path / "out", kind=kind, shares=shares)
    sizes = [len(part) for part in prepared.parts.values()]
    assert len(sizes) == sum(share > 0 for share in shares)
    assert np.abs(np.array(sizes) - sum(sizes) * np.array(shares[: len(sizes)])).max() <= 1
    assert sum(sizes) == prepared.description["tokens"]


def test_words_are_counted_in_training_part(text, tmp_path):
    text.write_text("b a a\n" * 8 + "new a\n" * 2)
    prepared = prepare_tokens([text], tmp_path / "out", kind="words", shares=(0.8, 0.2, 0.0))
    assert prepared.vocabulary.content == ["<unk>", "a", "b", "<eos>"]  # by their counts
    assert prepared.description["unknown"] == 2
    np.testing.assert_array_equal(prepared.parts["train"][:5], [2, 1, 1, 3, 2])
    small = prepare_tokens([text], tmp_path / "small", kind="words", vocabulary=2)
    assert small.vocabulary.content == ["<unk>", "a"]


def test_files_given_apart(text, tmp_path):
    for name in ("valid", "other", "test"):
        (tmp_path / name).write_text(f"the {name} end")
    options = dict(valid=[tmp_path / "valid", tmp_path / "other"], test=[tmp_path / "test"])
    prepared = prepare_tokens([text], tmp_path / "out", kind="words", **options)
    expected = {"train": LINES * 20, "valid": "the valid end the other end", "test": "the test end"}
    words = read_text(text).replace("\n", " <eos> ").split()
    assert prepared.vocabulary.content[0] == "<unk>"
    assert set(prepared.vocabulary.content) == {"<unk>", *words}
    for part, tokens in prepared.parts.items():
        codes = prepared.vocabulary.encode(expected[part].replace("\r\n", "\n").replace("\r", "\n"))
        np.testing.assert_array_equal(tokens[:], codes)


@pytest.mark.parametrize("count, dtype", [(255, "|u1"), (256, "<u2"), (70_000, "<u4")])
def test_dtype_is_the_smallest(tmp_path, count, dtype):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"w{n}" for n in range(count)), encoding="utf-8")
    options = dict(kind="words", valid=[path], vocabulary=count + 1)
    prepared = prepare_tokens([path], tmp_path / "out", **options)
    assert prepared.description["dtype"] == dtype and len(prepared.vocabulary) == count + 1
    read = prepared.parts["valid"][:]
    assert read.dtype == np.int32 and sorted(read) == list(range(1, count + 1))


def test_description_names_the_sources(text, tmp_path):
    prepare_tokens([text], tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "tokens.json").read_text())
    (source,) = facts["sources"]
    data = text.read_bytes()
    assert source["sha256"] == hashlib.sha256(data).hexdigest()
    assert (source["bytes"], source["tokens"]) == (len(data), facts["tokens"])
    again = prepare_tokens([text], tmp_path / "again").description
    assert again["sha256"] == facts["sha256"]
    other = prepare_tokens([text], tmp_path / "other", shares=(0.5, 0.5, 0.0)).description
    assert other["sha256"] != facts["sha256"]  # other parts


def test_windows_of_file_equal_windows_of_array(text, tmp_path):
    train = prepare_tokens([text], tmp_path / "out", kind="words").parts["train"]
    for kind in (Windows, VaryingWindows):
        mapped, array = kind.of(train, 3, 5), kind.of(train[:], 3, 5)
        assert mapped.steps == array.steps
        for p in range(12):
            for mine, its in zip(mapped(p), array(p), strict=True):
                np.testing.assert_array_equal(mine, its)


def test_progress_ends_with_all_bytes(text, tmp_path):
    calls = []
    options = dict(kind="words", on_progress=lambda *call: calls.append(call))
    prepare_tokens([text, text], tmp_path / "out", **options)
    size = 2 * text.stat().st_size
    labels = list(dict.fromkeys(label for label, *_ in calls))
    assert labels == ["counting all words", "counting each word", "writing tokens"]
    for label in labels:
        done = [(read, total) for name, read, total in calls if name == label]
        assert done == sorted(done) and {total for _, total in done} == {size}
        # the words of the last part are not counted one by one
        assert (done[-1][0] == size) == (label != "counting each word")


# The folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepared_folder_is_not_replaced(text, tmp_path):
    prepare_tokens([text], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(TextError, match="out already has a prepared text: .*`overwrite`"):
        prepare_tokens([text], tmp_path / "out", kind="bytes")
    assert snapshot(tmp_path / "out") == before
    (tmp_path / "out" / "notes").write_text("mine")
    prepare_tokens([text], tmp_path / "out", kind="bytes", overwrite=True)
    assert read_tokens(tmp_path / "out").description["kind"] == "bytes"
    assert snapshot(tmp_path / "out").keys() == before.keys() | {"notes"}


def test_other_folders_are_refused(text, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(TextError, match="full has other files, such as notes: name another"):
            prepare_tokens([text], tmp_path / "full", overwrite=overwrite)
    with pytest.raises(TextError, match="text.txt is a file: name a folder"):
        prepare_tokens([text], text)


def test_failure_leaves_folder_as_it_was(text, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good text, then\xff")
    with pytest.raises(TextError, match=r"bad.txt is not UTF-8 \(at byte 15\)"):
        prepare_tokens([text, bad], tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    prepare_tokens([text], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(TextError, match="bad.txt is not UTF-8"):
        prepare_tokens([bad], tmp_path / "out", overwrite=True)
    assert snapshot(tmp_path / "out") == before


def test_interruption_leaves_folder_as_it_was(text, tmp_path):
    def interrupt(label, done, total):
        if label == "writing tokens":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_tokens([text], tmp_path / "out", on_progress=interrupt)
    assert not (tmp_path / "out").exists()


def test_leftovers_of_killed_run_are_replaced(text, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("tokens.bin", "tokens.bin.partial", "tokens.json.partial"):
        (tmp_path / "out" / name).write_text("half")
    with pytest.raises(TextError, match="out is a folder: name one text file in it, or"):
        read_tokens(tmp_path / "out")
    prepare_tokens([text], tmp_path / "out")
    assert snapshot(tmp_path / "out").keys() == {"tokens.bin", "tokens.json", "vocabulary.json"}


@pytest.mark.parametrize(
    "damage, fault",
    [
        (lambda d: (d / "tokens.bin").write_bytes(b"\0"), "tokens.bin has 1 bytes, not those of"),
        (lambda d: flip(d / "tokens.bin"), "the SHA-256 of tokens.bin does not match"),
        (lambda d: (d / "tokens.bin").unlink(), "No such file or directory"),
        (
            lambda d: (d / "vocabulary.json").write_text("[1]"),
            r"\[1\] is no vocabulary of characters",
        ),
        (lambda d: (d / "vocabulary.json").write_text('"abc"'), "its SHA-256 does not match"),
        (lambda d: (d / "tokens.json").write_text('{"format": 7}'), "its format is 7, not 1"),
        (lambda d: (d / "tokens.json").write_text("{"), "Expecting property name"),
    ],
)
def test_damaged_folder_is_rejected(text, tmp_path, damage, fault):
    prepare_tokens([text], tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(TextError, match=rf"out is damaged \({fault}.*again, with `overwrite`"):
        read_tokens(tmp_path / "out")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


# Bad input


def test_changed_source_is_rejected(text, tmp_path):
    def change(label, done, total):
        if label == "writing tokens":
            text.write_text("another")

    with pytest.raises(TextError, match="text.txt was changed while it was read"):
        prepare_tokens([text], tmp_path / "out", on_progress=change)
    assert not (tmp_path / "out").exists()


def test_pipe_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TextError, match="pipe is a pipe or a device, but is read more than once"):
        prepare_tokens([tmp_path / "pipe"], tmp_path / "out")


@pytest.mark.parametrize("name, fault", [("none", "does not exist"), (".", "is a folder")])
def test_missing_source_is_rejected(tmp_path, name, fault):
    with pytest.raises(TextError, match=fault):
        prepare_tokens([tmp_path / name], tmp_path / "out")


@pytest.mark.parametrize(
    "content, fault",
    [
        (b" \n ", "text.txt is empty"),
        (b"ab\0cdefghij", r"text.txt is binary \(NUL at byte 2\)"),
        (b"abc", "the part valid has 0 tokens, but needs 2 or more"),
    ],
)
def test_unusable_text_is_rejected(text, tmp_path, content, fault):
    text.write_bytes(content)
    with pytest.raises(TextError, match=fault):
        prepare_tokens([text], tmp_path / "out")


@pytest.mark.parametrize(
    "options, fault",
    [
        (dict(kind="letters"), "kind is 'letters', but must be 'characters' or 'bytes' or"),
        (dict(shares=(0.5, 0.5, 0.5)), "`shares` is 0.5 0.5 0.5, but must be three numbers"),
        (dict(shares=(1.0, 0.0, 0.0)), "those of training and validation above 0"),
        (dict(shares=(1.2, -0.1, -0.1)), "whose sum is 1"),
        (dict(test=["text.txt"]), "`test` has files but `valid` has none"),
        (dict(valid=["text.txt"], shares=(0.8, 0.1, 0.1)), "`shares` cuts a text, but `valid`"),
        (dict(vocabulary=5), "`vocabulary` is the number of words, but the kind is characters"),
        (dict(kind="words", vocabulary=1), "`vocabulary` is 1, but must be a whole number"),
        (dict(kind="bytes", encoding="cp1252"), "`encoding` is not used for bytes"),
        (dict(kind="bytes", keep_line_ends=True), "is not for bytes, which always keep them"),
        (dict(kind="words", keep_line_ends=True), "is not for words, which have one word for"),
    ],
)
def test_bad_options_are_rejected(text, tmp_path, options, fault):
    with pytest.raises(ValueError, match=fault):
        prepare_tokens([text], tmp_path / "out", **options)
    with pytest.raises(ValueError, match="`train` names no file"):
        prepare_tokens([], tmp_path / "out")


def test_equal_counts_are_in_order_of_letters(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("c b b a a d " * 3)
    prepared = prepare_tokens([path], tmp_path / "out", kind="words", valid=[path])
    assert prepared.vocabulary.content == ["<unk>", "a", "b", "c", "d"]
