"""The command prepare: files apart or cut, what it prints, errors; train and sample after it."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lstm_optax import runs
from lstm_optax.commands.main import main
from lstm_optax.data import read_tokens

TEXT = "".join(f"{word} and " for word in ("cat", "dog\r\n", "pig", "hen") * 60)
SIZES = "--hidden 8 --embedding 4 --batch 2 --window 8 --steps 10 --eval-every 5".split()


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    (tmp_path / "other.txt").write_bytes(TEXT[:400].encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prepare_prints_parts(work, capsys):
    assert main("prepare text.txt --out data/my --kind words --shares .8 .1 .1".split()) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()] == [
        ["counting", "all", "words"],
        ["counting", "each", "word"],
        ["writing", "tokens"],
        ["train", "432", "words"],
        ["valid", "54", "words"],
        ["test", "54", "words"],
        ["vocabulary", "7", "words"],
        ["folder", "data/my"],
        ["train", "lstm-optax", "train", "--text", "data/my"],
    ]


def test_prepare_takes_files_apart(work):
    line = "prepare --train text.txt other.txt --valid other.txt --test other.txt --out data"
    assert main(line.split()) == 0
    prepared = read_tokens("data")
    size = len(TEXT.replace("\r\n", "\n")), len(TEXT[:400].replace("\r\n", "\n"))
    assert [len(part) for part in prepared.parts.values()] == [sum(size), size[1], size[1]]
    assert main([*line.split(), "--overwrite", "--keep-line-ends"]) == 0
    assert len(read_tokens("data").parts["valid"]) == 400


@pytest.mark.parametrize(
    "arguments, fault",
    [
        ("", "--out DIR is missing: name a folder"),
        ("text.txt", "--out DIR is missing: name a folder"),
        ("--out data", "no text: pass one or more files, or --train and --valid"),
        ("--out data --train text.txt", "--train is not enough: pass both --train and --valid"),
        ("--out data --valid text.txt --test text.txt", "--valid --test is not enough: pass both"),
        ("text.txt --out data --valid other.txt", "text.txt is to be cut into parts, and --valid"),
        ("text.txt --out data --shares .5 .5 .5", "--shares is 0.5 0.5 0.5, but must be three"),
        (
            "--train text.txt --valid other.txt --shares .8 .1 .1 --out data",
            "--shares cuts a text, but --valid has files of its own",
        ),
        ("text.txt --out data --vocabulary 9", "--vocabulary is the number of words, but the"),
        ("text.txt --out data --vocabulary 0", "--vocabulary is 0, but must be a whole number"),
        (
            "text.txt --out .",
            ". has other files, such as other.txt: name another folder with --out",
        ),
        ("text.txt --out text.txt", "text.txt is a file: name a folder with --out"),
        ("text.txt --out text.txt/data", "text.txt/data cannot be written: Not a directory; free"),
        ("missing.txt --out data", "missing.txt does not exist: check the name"),
        ("text.txt --out data --encoding utf-16", "text.txt is not UTF-16"),
    ],
)
def test_invalid_input_is_one_line(work, capsys, arguments, fault):
    before = sorted(work.rglob("*"))
    assert main(["prepare", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {fault}") and err.count("\n") == 1
    assert sorted(work.rglob("*")) == before


@pytest.mark.slow
def test_train_and_sample_words(work, capsys, monkeypatch):
    monkeypatch.setattr(runs, "loss_figure", Mock())
    assert main("prepare text.txt --out data --kind words --shares .8 .1 .1".split()) == 0
    assert main(["train", "--text", "data", *SIZES, "--run", "run", "--no-baselines"]) == 0
    out = capsys.readouterr().out
    assert "n-gram" not in out and "words/s" in out
    record = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert f"nats  perplexity {record['perplexity']:.3f}" in out
    assert "nats per word" in out and f"{record['perplexity']:,.1f}" in out
    assert main("sample --run run --prompt cat --length 5".split()) == 0
    assert capsys.readouterr().out.startswith("cat ")
    assert main(["train", "--resume", "--run", "run"]) == 0


MEASURE = """
import resource, sys
from lstm_optax.commands.main import main
import lstm_optax.data._prepare_tokens, lstm_optax.runs.tables
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize("kind", ["characters", "bytes", "words"])
def test_memory_does_not_grow_with_text(work, kind):
    """A text of 48 MB is prepared in 24 MB more than a small one takes before it starts."""
    words = np.random.default_rng(0).choice(["cat", "dog", "on", "the", "mat\n"], 2**16)
    piece = " ".join(words).encode()
    with open("large.txt", "wb") as file:
        for _ in range(48 * 10**6 // len(piece)):
            file.write(piece)
    line = ["prepare", "large.txt", "--out", "data", "--kind", kind]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *line], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 24 * 1024


@pytest.mark.slow
def test_reading_a_file_of_tokens_keeps_no_pages(work):
    """The pages that a pass over 64 MB of tokens reads are released."""
    Path("large.txt").write_bytes(bytes(range(1, 129)) * 2**19)
    assert main("prepare large.txt --out data --kind bytes".split()) == 0
    code = (
        "import numpy as np, resource; from lstm_optax.data import read_tokens, Windows\n"
        "windows = Windows.of(read_tokens('data').parts['train'], 32, 4096)\n"
        "windows(0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for batch in windows: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 * 1024


PEAK = """
import re, sys
from pathlib import Path
from lstm_optax.commands.main import main
assert main(sys.argv[1:]) == 0
print(*re.findall(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text()))
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_words_train_within_one_gigabyte(work, monkeypatch):
    """The n-gram models count as many words as of any larger text."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)  # compiling needs memory, too
    size = 33_000
    chances = 1 / np.arange(1, size + 1)
    ranks = np.random.default_rng(0).choice(size, 6_000_000, p=chances / chances.sum())
    Path("words.txt").write_text(" ".join(f"w{rank}" for rank in ranks))
    assert main("prepare words.txt --out data --kind words".split()) == 0
    line = "train --text data --softmax adaptive --embedding 200 --hidden 200 --batch 20"
    line += " --window 35 --steps 60 --eval-every 10"
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *line.split()], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "counting n-gram models of 5,000,000 words" in done.stdout
    assert int(done.stdout.split()[-1]) * 1024 < 1e9
