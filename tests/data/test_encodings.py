"""Texts in other encodings than UTF-8: the error proposes an encoding that decodes them."""

import os
import threading

import numpy as np
import pytest

from lstm_optax.data import TextError, read_text
from lstm_optax.data.encodings import fitting_encodings

FRENCH = "Le café était très cher, et l’été à Noël n’a jamais été aussi chaud. Où êtes-vous ? "
CHINESE = "今天天气很好，我们一起去公园玩。北京是中国的首都。学习语言模型。"
RUSSIAN = "Сегодня хорошая погода, мы пошли гулять в парк. Москва столица России. "
JAPANESE = "今日はとても天気がいいので、公園に行きました。東京は日本の首都です。"
SAMPLES = [
    ("cp1252", FRENCH),
    ("latin-1", "Die Übergröße der Straße war für ältere Bürger schwierig. "),
    ("cp1250", "Zażółć gęślą jaźń. W Polsce jest bardzo piękna pogoda. "),
    ("gb18030", CHINESE),
    ("koi8-r", RUSSIAN),
    ("cp1251", RUSSIAN),
    ("shift_jis", JAPANESE),
    ("euc-jp", JAPANESE),
    ("cp949", "오늘은 날씨가 매우 좋아서 공원에 갔습니다. 서울은 한국의 수도입니다. "),
    ("big5", "今天天氣很好，我們一起去公園玩。台北是台灣的首都。"),
    ("utf-16", CHINESE),
    ("utf-16-le", CHINESE),  # without byte order mark and ASCII
    ("utf-16-be", JAPANESE),
    ("utf-16-be", RUSSIAN),
    ("utf-16-le", "plain ASCII without a mark "),
    ("utf-32", JAPANESE),
]


@pytest.mark.parametrize("data", [b"caf\xe9", b"r\xe9sum\xe9", b"x" * 9001 + b"\xe9" + b"y" * 998])
def test_ascii_letters_are_not_proposed_as_utf16(data):
    found = list(fitting_encodings(data))
    assert found and not any(name.startswith("utf_16") for name in found)


@pytest.mark.parametrize("encoding", ["cp866", "iso8859_5"])
def test_rare_encoding_is_not_called_binary(tmp_path, encoding):
    (tmp_path / "file").write_bytes((RUSSIAN * 30).encode(encoding))
    with pytest.raises(TextError, match="its encoding is not recognised: pass Python"):
        read_text(tmp_path / "file")
    assert read_text(tmp_path / "file", encoding=encoding) == RUSSIAN * 30


@pytest.mark.parametrize("times", [1, 4000])  # below and above the detector's sample
@pytest.mark.parametrize("encoding, sample", SAMPLES)
def test_proposed_encoding_reads_text(tmp_path, encoding, sample, times):
    path, text = tmp_path / "file", sample * times
    path.write_bytes(text.encode(encoding))
    with pytest.raises(TextError, match=r"its bytes fit .* such as `encoding='(.+)'`$") as error:
        read_text(path)
    proposed = str(error.value).rsplit("'", 2)[1]
    assert read_text(path, encoding=proposed) == text == read_text(path, encoding=encoding)


@pytest.mark.parametrize("encoding, sample", SAMPLES)
def test_proposed_encodings_decode_all_bytes(encoding, sample):
    data = ("plain\n" * 40_000 + sample * 3).encode(encoding)  # beyond the detector's sample
    found = fitting_encodings(data)
    assert found and all(len(data.decode(name)) for name in found)


@pytest.mark.parametrize(
    "data, message",
    [
        (bytes(range(256)) * 4, r"is not UTF-8 \(at byte 128\), not text: name a plain text file"),
        (
            b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(3000),
            "not text: name a plain text file",
        ),
        (b"\0" * 1000, r"is binary \(NUL at byte 0\), not text"),
        (
            FRENCH.encode() + b"\xff" + FRENCH.encode(),
            r"is not UTF-8 \(at byte 99\); it is UTF-8 except for 1 byte: .* iconv -c -f UTF-8",
        ),
        (FRENCH.encode()[:-3] + b"\xc3", "it is UTF-8 except for 1 byte"),  # cut off
    ],
    ids=["bytes", "png", "zeros", "one bad byte", "cut"],
)
def test_read_text_rejects_binary_files(tmp_path, data, message):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(TextError, match=message):
        read_text(tmp_path / "file")


@pytest.mark.parametrize("name", ["utf-9", "", "base64", "hex", "rot13", "a\0b", "ü"])
def test_read_text_rejects_unknown_encoding(tmp_path, name):
    (tmp_path / "file").write_bytes(b"ab")
    with pytest.raises(TextError, match="^`encoding` is .* but Python knows no such text enc"):
        read_text(tmp_path / "file", encoding=name)


def test_wrong_encoding_proposes_others(tmp_path):
    (tmp_path / "file").write_bytes(RUSSIAN.encode("koi8-r"))
    with pytest.raises(TextError, match=r"is not ascii \(at byte 0\); its bytes fit koi8_r"):
        read_text(tmp_path / "file", encoding="ascii")
    (tmp_path / "file").write_bytes(RUSSIAN.encode())
    with pytest.raises(TextError, match="it is UTF-8: pass `encoding='utf-8'`"):
        read_text(tmp_path / "file", encoding="ascii")


def test_read_text_rejects_long_file(tmp_path):
    (tmp_path / "file").write_bytes(b"ab\n" * 10)
    assert len(read_text(tmp_path / "file", limit=30)) == 30
    with pytest.raises(TextError, match="holds more than 29 bytes, the limit"):
        read_text(tmp_path / "file", limit=29)
    with pytest.raises(ValueError, match="limit is 0, but must be a whole number of at least 1"):
        read_text(tmp_path / "file", limit=0)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_read_text_stops_at_endless_file():
    with pytest.raises(TextError, match=r"/dev/zero is binary \(NUL at byte 0\), not text"):
        read_text("/dev/zero")
    with pytest.raises(TextError, match="/dev/zero holds more than 5,000,000 bytes"):
        read_text("/dev/zero", encoding="cp1252", limit=5_000_000)


def test_read_text_reads_pipe_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"some text"))
    write.start()
    assert read_text(tmp_path / "pipe") == "some text"
    write.join()
