"""Encodings that fit the bytes of a text, for error messages; no text is decoded by a guess."""

from __future__ import annotations

import codecs
import os
import re

from charset_normalizer import from_bytes

# the order decides between equal scores
CANDIDATES = (
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
BYTE_ORDER_MARKS = {  # UTF-32 first, since its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf_32",
    codecs.BOM_UTF32_BE: "utf_32",
    codecs.BOM_UTF16_LE: "utf_16",
    codecs.BOM_UTF16_BE: "utf_16",
}
SAMPLE_SIZE = 2**17  # bytes that the detector reads
# no text has these; U+0085 is excluded, since it is a line end
CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
IDEOGRAPHIC = re.compile("[\u3000-\u9fff\uff00-\uffef\\s]")


def fitting_encodings(data: bytes, *, whole: bool = True, most: int = 3) -> dict[str, str]:
    """Return encodings other than UTF-8 that decode all of `data` to text, the likeliest first.

    Args:
      data: some bytes.
      whole: whether `data` is complete; if not, its last character may be cut off.
      most: the largest number of encodings to return.

    Returns:
      A dictionary from encoding to a few decoded characters: those around the first place at which
      the encodings differ, or around the first character that is not ASCII.
    """
    texts: dict[str, str] = {}
    for name in _likely_encodings(data):
        text = _decode_or_none(data, name, whole)
        if text is None or CONTROL.search(text) or text in texts.values():
            continue
        texts[name] = text
        if len(texts) == most:
            break
    return {name: _excerpt(text, list(texts.values())) for name, text in texts.items()}


def count_utf8_errors(data: bytes) -> tuple[int, int]:
    """Return the number of bytes that are not UTF-8, and of characters that are not ASCII."""
    text = data.decode("utf-8", "surrogateescape")
    errors = len(re.findall("[\udc80-\udcff]", text))
    return errors, len(re.findall("[^\0-\x7f]", text)) - errors


def _likely_encodings(data: bytes) -> list[str]:
    """Return the names of encodings that fit a sample of the bytes, the likeliest first."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return [name]
    found = from_bytes(_sample(data), cp_isolation=list(CANDIDATES), preemptive_behaviour=False)
    scores = {}
    letters = len(re.findall(b"[A-Za-z]", data[:SAMPLE_SIZE]))
    mostly_ascii = letters > 0.5 * len(data[:SAMPLE_SIZE])
    for match in found:
        if mostly_ascii and match.encoding.startswith("utf_16"):
            continue  # any two ASCII letters are an ideograph in UTF-16
        # rounded, since finer differences are noise
        score = round(match.chaos, 1), -round(5 * match.coherence)
        for name in (match.encoding, *match.could_be_from_charset):
            if name in CANDIDATES:
                scores[name] = min(score, scores.get(name, score))
    ranked = sorted(scores, key=lambda name: (scores[name], CANDIDATES.index(name)))
    # the detector knows UTF-16 by its byte order mark or NULs, which ideographs do not have
    wide = [n for n in ("utf_16_le", "utf_16_be") if not mostly_ascii and _is_ideographic(data, n)]
    return ranked[:1] + [name for name in wide if name not in ranked] + ranked[1:]


def _is_ideographic(data: bytes, name: str) -> bool:
    """Return whether a sample decodes to Chinese or Japanese; in UTF-16 such text has no NULs."""
    text = _decode_or_none(data[: SAMPLE_SIZE - SAMPLE_SIZE % 4], name, whole=False)
    return bool(text) and len(IDEOGRAPHIC.findall(text)) > 0.95 * len(text)


def _sample(data: bytes) -> bytes:
    """Return the bytes around the first that is not ASCII, cut at a character's boundary."""
    if len(data) <= SAMPLE_SIZE:
        return data
    first = re.search(b"[^\x01-\x7f]", data)
    start = max((first.start() if first else 0) - SAMPLE_SIZE // 2, 0)
    if b"\0" in data[start : start + SAMPLE_SIZE]:
        return data[start - start % 4 :][:SAMPLE_SIZE]  # UTF-16 or UTF-32
    start = max(data.find(b"\n", start, start + SAMPLE_SIZE // 4), 0) if start else 0
    end = data.rfind(b"\n", start + 1, start + SAMPLE_SIZE)
    return data[start : end if end > 0 else start + SAMPLE_SIZE]


def _decode_or_none(data: bytes, name: str, whole: bool) -> str | None:
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
