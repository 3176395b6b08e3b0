"""Training on a prepared text: equal to a text in memory, resumed to the bit, and decoded."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from reproducible import reproducible

import lstm_optax as lo
from lstm_optax.data import TextError, WordVocabulary, prepare_tokens
from lstm_optax.runs import Observer, OptionError, SampleConfig
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.runs.run_folder import RunFolder

TEXT = "".join(f"{word} and " for word in ("cat", "dog\n", "pig", "hen") * 60)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a text, and prepared texts of its characters and its words."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "text.txt").write_text(TEXT)
    for kind in ("characters", "words", "bytes"):
        prepare_tokens([folder / "text.txt"], folder / kind, kind=kind, shares=(0.8, 0.1, 0.1))
    return folder


def config(text, **values) -> lo.TrainConfig:
    sizes = dict(hidden=8, embedding=4, batch=2, window=8, schedule="constant", devices=1)
    return lo.TrainConfig(**(dict(text=text, steps=10, eval_every=5) | sizes | values))


def timeless(folder) -> list[dict]:
    return reproducible(RunFolder(folder).records.read())


def test_corpus_of_folder_has_its_parts(place, monkeypatch):
    corpus = corpus_of(config(place / "characters"))
    total, held_out = len(TEXT), round(0.1 * len(TEXT))
    assert (corpus.kind, corpus.unit, corpus.tokens) == ("characters", "character", total)
    assert [len(codes) for codes in corpus.codes] == [total - 2 * held_out, held_out]
    assert corpus.vocabulary.decode(corpus.codes[1]) == TEXT[-2 * held_out : -held_out]
    part = corpus_of(config(place / "characters", validation=20))
    np.testing.assert_array_equal(part.codes[1], corpus.codes[1][:20])
    assert part.held_out == f"the first 20 of {held_out} characters of its part"
    monkeypatch.setattr("lstm_optax.runs.corpus.MAX_VALIDATION", 30)
    assert len(corpus_of(config(place / "characters")).codes[1]) == 30


def test_baselines_of_a_file_equal_those_of_an_array(place):
    corpus = corpus_of(config(place / "words"))
    whole = replace(corpus, codes=(corpus.codes[0][:], corpus.codes[1]))
    assert corpus.count_ngrams() == whole.count_ngrams()
    assert corpus.count_ngrams()["uniform"] == pytest.approx(math.log(len(corpus.vocabulary)))


@pytest.mark.parametrize(
    "options, fault",
    [
        (dict(encoding="cp1252"), "--encoding is for a text file, but .* is a prepared text"),
        (dict(keep_line_ends=True), "--keep-line-ends is for a text file, but .* leave the option"),
        (dict(validation=5000), "`validation` is 5,000, but the validation part of .* has"),
        (dict(batch=900), "needs 7201: use a smaller `batch` or `window`"),
    ],
)
def test_options_that_do_not_fit_a_prepared_text(place, options, fault):
    with pytest.raises((TextError, OptionError), match=fault):
        corpus_of(config(place / "characters", **options))


def test_line_ends_of_a_text_are_kept(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"cat\r\ndog\r" * 40)
    contents = [
        corpus_of(config(tmp_path / "text.txt", keep_line_ends=keep)).vocabulary.content
        for keep in (False, True)
    ]
    assert contents == ["\nacdgot", "\n\racdgot"]


@pytest.mark.slow
def test_words_report_perplexity(place, tmp_path):
    plans, counts = [], []
    observer = Observer(plan=plans.append, count=counts.append)
    options = config(place / "words", baselines=False)
    result = lo.train_language_model(options, tmp_path / "run", observer=observer)
    assert result.baselines == {} and counts == []
    assert [r["perplexity"] for r in result.records] == [
        math.exp(r["val_loss"]) for r in result.records
    ]
    plan = dict(plans[0])
    tokens = len(TEXT.replace("\n", " <eos> ").split())
    assert f"words, {tokens} words, 7 distinct" in plan["text"]
    assert "10 steps of 2 × 8 words" in plan["training"]
    loaded = lo.load_run(tmp_path / "run")
    assert isinstance(loaded.vocabulary, WordVocabulary)
    sample = SampleConfig(prompt="the cat", length=20)
    words = lo.sample_text(tmp_path / "run", sample).replace("\n", " <eos> ").split()
    assert words[:2] == ["<unk>", "cat"] and set(words) <= set(loaded.vocabulary.content)
    with pytest.raises(OptionError, match="--prompt '  ' has no words: pass at least one"):
        lo.sample_text(tmp_path / "run", replace(sample, prompt="  "))


@pytest.mark.slow
def test_run_on_file_equals_run_in_memory(place, tmp_path):
    held_out = round(0.1 * len(TEXT))
    prepared = config(place / "characters")
    (tmp_path / "text.txt").write_text(TEXT[:-held_out])
    in_memory = replace(prepared, text=tmp_path / "text.txt", validation=held_out)
    results = [
        lo.train_language_model(options, tmp_path / name)
        for name, options in {"file": prepared, "memory": in_memory}.items()
    ]
    assert timeless(tmp_path / "file") == timeless(tmp_path / "memory")
    assert results[0].baselines == results[1].baselines


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_resumed_run_equals_uninterrupted(place, tmp_path, kind):
    options = config(place / kind, dropout=0.5, vary_window=True)
    lo.train_language_model(options, tmp_path / "whole")
    seen = []
    stop = Observer(progress=lambda step, loss: seen.append(step), should_stop=lambda: bool(seen))
    assert lo.train_language_model(options, tmp_path / "run", observer=stop).step < 10
    lo.train_language_model(options, tmp_path / "run", resume=True)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    assert ("perplexity" in timeless(tmp_path / "run")[0]) == (kind == "words")
    lo.sample_text(tmp_path / "run", SampleConfig(length=9))


@pytest.mark.slow
def test_resume_refuses_another_prepared_text(place, tmp_path):
    options = config(place / "words", baselines=False)
    lo.train_language_model(options, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "config.json").read_text())
    assert facts["text"]["kind"] == "words"
    for other in ("bytes", "characters"):
        with pytest.raises(OptionError, match="differs from the text of the run"):
            lo.train_language_model(
                replace(options, text=place / other), tmp_path / "run", resume=True
            )
    again = replace(options, baselines=True)  # which changes no number of the model
    assert lo.train_language_model(again, tmp_path / "run", resume=True).baselines
