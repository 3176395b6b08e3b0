"""Length of a run and of the validation text; text that is read or counted once."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from lstm_optax import TrainConfig
from lstm_optax import train_language_model as train
from lstm_optax.data import TextError, ngram_losses
from lstm_optax.runs import Observer, OptionError
from lstm_optax.runs import corpus as corpus_module
from lstm_optax.runs.corpus import corpus_of, resolve_epochs
from lstm_optax.runs.run_folder import RunFolder

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)  # 960 characters


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    (tmp_path / "text.txt").write_text(TEXT)
    sizes = dict(hidden=8, embedding=4, batch=2, window=8, devices=1, schedule="constant")
    return TrainConfig(text=tmp_path / "text.txt", steps=10, eval_every=5, **sizes)


def test_default_validation_length(config, monkeypatch):
    assert len(corpus_of(config).codes[1]) == 96
    assert len(corpus_of(replace(config, validation=300)).codes[1]) == 300
    monkeypatch.setattr(corpus_module, "MAX_VALIDATION", 50)
    corpus = corpus_of(config)
    assert [len(codes) for codes in corpus.codes] == [910, 50]
    assert corpus.vocabulary.decode(corpus.codes[1]) == TEXT[-50:]
    with pytest.raises(TextError, match="split into 1 to train and 959 to validate"):
        corpus_of(replace(config, validation=959))


def test_ngram_count_is_limited(config, monkeypatch):
    corpus = corpus_of(config)
    train, validation = corpus.codes
    assert corpus.counted == 864
    monkeypatch.setattr(corpus_module, "MAX_COUNTED", 100)
    assert corpus.counted == 100
    assert corpus.count_ngrams() == ngram_losses(train[-100:], validation, len(corpus.vocabulary))


@pytest.mark.parametrize("epochs", [0.001, 0.5, 1.0, 2.5, 7.0])
def test_epochs_resolve_to_steps(config, epochs):
    corpus = corpus_of(config)
    resolved = resolve_epochs(replace(config, steps=400, epochs=epochs), corpus)
    assert resolved.epochs is None
    windows = len(corpus.train)
    assert resolved.steps == max(1, int(np.ceil(epochs * windows)))
    assert corpus.passes(resolved.steps) == pytest.approx(resolved.steps / windows)


def test_epochs_of_varying_windows(config):
    varying = replace(config, steps=400, epochs=3.0, vary_window=True)
    corpus = corpus_of(varying)
    steps = resolve_epochs(varying, corpus).steps
    read = corpus.train.start(steps) / corpus.train.steps
    assert read == pytest.approx(3, rel=0.15) == corpus.passes(steps)


def test_resolve_epochs_rejects_too_many(config):
    endless = replace(config, steps=400, epochs=1e30)
    with pytest.raises(OptionError, match="--epochs 1e.30 means .*, but at most 2,147,483,647"):
        resolve_epochs(endless, corpus_of(endless))
    with pytest.raises(OptionError, match="--warmup is 60, but .* --steps, which is 53"):
        resolve_epochs(replace(endless, epochs=1.0, warmup=60), corpus_of(endless))


@pytest.mark.slow
def test_resume_of_epochs(config, tmp_path):
    folder, epochs = tmp_path / "run", replace(config, steps=400, epochs=0.1)
    counts = []
    observer = Observer(count=counts.append)
    assert train(epochs, folder, observer=observer).step == 6
    stored = RunFolder(folder).read_config()[0]
    assert (stored.steps, stored.epochs) == (6, None)
    for again in (epochs, replace(config, steps=6)):
        assert train(again, folder, resume=True, observer=observer).step == 6
    assert train(replace(epochs, epochs=0.2), folder, resume=True, observer=observer).step == 11
    assert counts == [864]  # in the first part only
    with pytest.raises(OptionError, match="the run has already taken 11 steps"):
        train(epochs, folder, resume=True)
    with pytest.raises(OptionError, match="the run in .* has no --validation; leave these"):
        train(replace(config, steps=11, validation=50), folder, resume=True)


@pytest.mark.slow
def test_killed_while_counting_ngrams(config, tmp_path):
    def die(characters):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", observer=Observer(count=die))
    assert RunFolder(tmp_path / "run").read_config()[1]["baselines"] == {}


@pytest.mark.slow
def test_train_from_pipe(config, tmp_path):
    def pipe():
        os.mkfifo(tmp_path / "pipe")
        threading.Thread(target=lambda: (tmp_path / "pipe").write_text(TEXT)).start()
        return replace(config, text=tmp_path / "pipe", steps=2)

    corpus = corpus_of(pipe())
    assert corpus.stream and corpus.tokens == len(TEXT)
    (tmp_path / "pipe").unlink()
    result = train(pipe(), tmp_path / "run")
    assert result.step == 2
    facts = RunFolder(tmp_path / "run").read_config()[1]
    assert facts["text"]["stream"] and facts["text"]["sha256"] == corpus.sha256
    assert not corpus_of(config).stream
    assert train(replace(config, steps=2), tmp_path / "run", resume=True).step == 2  # as a file


def test_encoding_is_stored(config, tmp_path):
    latin = replace(config, text=tmp_path / "latin.txt", encoding="cp1252", steps=2)
    latin.text.write_bytes(TEXT.replace("pig", "pïg").encode("cp1252"))
    train(latin, tmp_path / "run")
    stored, facts = RunFolder(tmp_path / "run").read_config()
    assert stored.encoding == "cp1252" and "ï" in facts["text"]["vocabulary"]
    latin.text.write_text(TEXT.replace("pig", "pïg"))  # as UTF-8
    assert train(replace(latin, encoding="utf-8"), tmp_path / "run", resume=True).step == 2
