"""A small text in place of the file that a reproduction needs."""

import hashlib
from dataclasses import replace

import numpy as np

from lstm_optax.reproductions import published


def use_small_text(path, monkeypatch, name, length=400):
    """Write a text to a path, and let a reproduction expect it; return the text."""
    text = "".join(np.random.default_rng(0).choice(list("abcde   "), size=length))
    path.write_bytes(text.encode())
    known = published.REPRODUCTIONS[name]
    data = replace(known.data, sha256=hashlib.sha256(text.encode()).hexdigest())
    changed = {**published.REPRODUCTIONS, name: replace(known, data=data)}
    monkeypatch.setattr(published, "REPRODUCTIONS", changed)
    return text
