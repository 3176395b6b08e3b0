"""Small data in place of the files that reproductions need."""

import hashlib
import io
import zipfile
from dataclasses import replace

import numpy as np

from lstm_optax.reproductions import published, spoken_vowels

UTTERANCES = 8  # of each speaker in `small_wheel`: 2 for training, 6 for validation


def small_text(length=400):
    """Random letters and spaces."""
    return "".join(np.random.default_rng(0).choice(list("abcde   "), size=length))


def small_wheel():
    """A ZIP archive with few utterances, speaker after speaker in turn."""
    lines = [series(s, n, 7 + (s + n) % 23) for n in range(UTTERANCES) for s in range(9)]
    content = "#Comment\n@problemName JapaneseVowels\n@data\n" + "\n".join(lines) + "\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for part in ("TRAIN", "TEST"):
            archive.writestr(spoken_vowels.FILES.format(part), content)
    return file.getvalue()


def series(speaker, number, frames):
    """Frames whose first feature is the number of the utterance, in the form of the file."""
    features = [[number] * frames, *[[speaker + f] * frames for f in range(1, 12)]]
    return ":".join(",".join(map(str, feature)) for feature in features) + f":{speaker + 1}"


def use_small_data(path, monkeypatch, name):
    """Write small data to a path, let a reproduction expect them, and return them."""
    known = published.REPRODUCTIONS[name]
    content = small_wheel() if known.data is published.AEON_WHEEL else small_text().encode()
    path.write_bytes(content)
    data = replace(known.data, sha256=hashlib.sha256(content).hexdigest())
    changed = {**published.REPRODUCTIONS, name: replace(known, data=data)}
    monkeypatch.setattr(published, "REPRODUCTIONS", changed)
    return content
