"""Encodings that the bytes of a text fit, for the hint of an error; nothing is read by a guess."""

from __future__ import annotations

import codecs
import os
import re

from charset_normalizer import from_bytes

COMMON = (  # tried, and the order among those that fit equally well
    *("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"),
    *(
        "cp1252",
        "iso8859_15",
        "cp1251",
        "gb18030",
        "cp932",
        "euc_jp",
        "cp949",
        "big5",
        "koi8_r",
        "cp1250",
    ),
    *("cp1254", "cp1253", "cp1255", "cp1256", "cp1257", "cp1258", "iso8859_2", "iso2022_jp"),
    *("mac_roman", "cp437"),
)
MARKS = {  # the byte order mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf_32",
    codecs.BOM_UTF32_BE: "utf_32",
    codecs.BOM_UTF16_LE: "utf_16",
    codecs.BOM_UTF16_BE: "utf_16",
}
SAMPLE = 2**17  # bytes that the detector sees
CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # in no text; U+0085 is a line's end
IDEOGRAPHIC = re.compile("[\u3000-\u9fff\uff00-\uffef\\s]")


def fitting_encodings(data: bytes, *, whole: bool = True, most: int = 3) -> dict[str, str]:
    """Return encodings other than UTF-8 that decode all of `data` to text, the likeliest first.

    Args:
      data: some bytes.
      whole: whether `data` is complete; if not, a character may be cut off at its end.
      most: how many at most.

    Returns:
      For each encoding a few of the characters that it yields: those around the first place at
      which the encodings differ, or around the first character that is not ASCII.
    """
    texts: dict[str, str] = {}
    for name in _guess(data):
        text = _decode(data, name, whole)
        if text is None or CONTROL.search(text) or text in texts.values():
            continue
        texts[name] = text
        if len(texts) == most:
            break
    return {name: _excerpt(text, list(texts.values())) for name, text in texts.items()}


def count_utf8_faults(data: bytes) -> tuple[int, int]:
    """Return how many bytes are no UTF-8, and how many characters other than ASCII are."""
    text = data.decode("utf-8", "surrogateescape")
    faults = len(re.findall("[\udc80-\udcff]", text))
    return faults, len(re.findall("[^\0-\x7f]", text)) - faults


def _guess(data: bytes) -> list[str]:
    """Return the names of encodings that a sample fits, the likeliest first."""
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return [name]
    found = from_bytes(_sample(data), cp_isolation=list(COMMON), preemptive_behaviour=False)
    scores = {}
    narrow = len(re.findall(b"[A-Za-z]", data[:SAMPLE])) > 0.5 * len(data[:SAMPLE])
    for match in found:
        if narrow and match.encoding.startswith("utf_16"):
            continue  # any two letters of ASCII are an ideograph in UTF-16
        score = round(match.chaos, 1), -round(5 * match.coherence)  # finer ones say nothing
        for name in (match.encoding, *match.could_be_from_charset):
            if name in COMMON:
                scores[name] = min(score, scores.get(name, score))
    ranked = sorted(scores, key=lambda name: (scores[name], COMMON.index(name)))
    wide = [n for n in ("utf_16_le", "utf_16_be") if not narrow and _is_ideographic(data, n)]
    return ranked[:1] + [name for name in wide if name not in ranked] + ranked[1:]


def _is_ideographic(data: bytes, name: str) -> bool:
    """Whether a sample reads as Chinese or Japanese, which has no NUL to know UTF-16 by."""
    text = _decode(data[: SAMPLE - SAMPLE % 4], name, whole=False)
    return bool(text) and len(IDEOGRAPHIC.findall(text)) > 0.95 * len(text)


def _sample(data: bytes) -> bytes:
    """Return bytes about the first that is not ASCII, cut where no character is cut."""
    if len(data) <= SAMPLE:
        return data
    first = re.search(b"[^\x01-\x7f]", data)
    start = max((first.start() if first else 0) - SAMPLE // 2, 0)
    if b"\0" in data[start : start + SAMPLE]:
        return data[start - start % 4 :][:SAMPLE]
    start = max(data.find(b"\n", start, start + SAMPLE // 4), 0) if start else 0
    end = data.rfind(b"\n", start + 1, start + SAMPLE)
    return data[start : end if end > 0 else start + SAMPLE]


def _decode(data: bytes, name: str, whole: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(name)().decode(data, whole)
    except UnicodeError:
        return None


def _excerpt(text: str, texts: list[str], around: int = 8) -> str:
    if len(texts) > 1:
        place = len(os.path.commonprefix(texts))
    else:
        other = re.search("[^\0-\x7f\ufeff]", text)
        place = other.start() if other else 0
    return " ".join(text[max(place - around, 0) : place + around].split())
