"""Command line: output, invalid input, interruption and resume."""

import contextlib
import errno
import fcntl
import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from other_thread import is_free
from rich.console import Console

import lstm_optax
from lstm_optax import CheckpointError, Checkpoints, TrainConfig, response, runs
from lstm_optax.commands import program as cli
from lstm_optax.commands.explain import Explain
from lstm_optax.commands.main import main
from lstm_optax.records import MEASURED, read_records
from lstm_optax.runs import Diverged, TrainScreen, progress
from lstm_optax.runs.folder_lock import LOCK_FILE, hold_folder
from lstm_optax.runs.own_files import MANIFEST
from lstm_optax.runs.run_folder import RunFolder

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)
SIZES = (
    "--hidden 8 --embedding 4 --dropout .5 --batch 2 --window 8 --schedule constant --warmup 7 "
    "--steps 20 --eval-every 5"
).split()
FILES = {"metrics.jsonl", "loss.png", "sample.txt", "config.json", "checkpoints"}
FILES |= {LOCK_FILE, MANIFEST}


@pytest.fixture(scope="module")
def output() -> io.StringIO:
    """Return the output of the finished run."""
    return io.StringIO()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, output) -> Path:
    """Return a working folder with a text, and a run in runs/a b."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        assert main(["train", "--text", "text.txt", *SIZES, "--run", "runs/a b"]) == 0
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """Change to a working folder with valid and invalid texts."""
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "binary.txt").write_bytes(b"ab\0cd" * 200)
    (tmp_path / "latin.txt").write_bytes("café ".encode("latin-1") * 200)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(finished, work) -> Path:
    """Return a copy of the finished run, runs/a b in the working folder."""
    shutil.copytree(finished / "runs", work / "runs")
    return Path("runs/a b")


@pytest.fixture
def no_picture(monkeypatch):
    """Skip the picture, which takes a third of the time of a short run."""
    monkeypatch.setattr(runs, "loss_figure", Mock())


def train(*arguments: str) -> int:
    return main(["train", "--text", "text.txt", *SIZES, *arguments])


def same(run: Path, other: Path) -> bool:
    """Return whether two runs have the same records except for the times, and the same state."""

    def contents(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) | dict.fromkeys(MEASURED) for line in lines]
        checkpoints = Checkpoints(folder / "checkpoints")
        step = checkpoints.steps()[-1]
        assert checkpoints.is_whole(step)
        with ocp.StandardCheckpointer() as checkpointer:
            state = checkpointer.restore(checkpoints.folder / str(step))
        leaves = jax.tree_util.tree_leaves_with_path(state)
        assert len(leaves) > 20
        return records, step, [(str(path), np.asarray(leaf).tobytes()) for path, leaf in leaves]

    return contents(run) == contents(other)


def steps_of(run: Path) -> list[int]:
    """Return the steps of the records."""
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def damage(run: Path, step: int) -> None:
    """Flip one bit in the largest file of a checkpoint."""
    files = [path for path in (run / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file except locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    return {str(path): path.read_bytes() for path in files}


# Output


def test_train_output(finished, output):
    run, out = finished / "runs/a b", output.getvalue()
    landmarks = [
        "text        text.txt, 960 characters, 12 distinct",
        "model       LSTM, 1 × 8 units, embedding 4, dropout 0.5, ",
        "optimizer   nadam, learning rate 0.016 constant, warmup 7 steps, clip 1",
        "training    20 steps of 2 × 8 characters, ",
        "device      cpu:0",
        "run folder  runs/a b",
        "step      5  training ",
        "step     20  training ",
        "┃ nats per character ┃ bits per character ┃",
        "a sample",
        "files      runs/a b/metrics.jsonl",
        "           runs/a b/loss.png",
        "           runs/a b/sample.txt",
        "           runs/a b/config.json",
        "           runs/a b/checkpoints",
        "more text  lstm-optax sample --run 'runs/a b'",
    ]
    places = [out.find(landmark) for landmark in landmarks]
    assert -1 not in places and places == sorted(places)
    assert {path.name for path in run.iterdir()} == FILES
    assert run.joinpath("loss.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        losses = f"training {record['train_loss']:.3f}  validation {record['val_loss']:.3f} nats"
        assert f"step {record['step']:>6}  {losses}" in out
    best = min(records, key=lambda record: record["val_loss"])
    row = next(line for line in out.splitlines() if f"│ LSTM, step {best['step']} " in line)
    nats = best["val_loss"]
    assert row.split("│")[2:4] == [f"{nats:>19.3f} ", f"{nats / np.log(2):>19.3f} "]
    sample = (run / "sample.txt").read_text()
    assert len(sample) == 302 and sample.strip("\n") in out


def test_divergence_is_one_line_error(work, capsys, monkeypatch):
    def diverge(config, folder, **_):
        raise Diverged(f"step 3 of [{folder}] is not finite")

    monkeypatch.setattr("lstm_optax.runs.train.train_in_held_folder", diverge)
    assert train() == 2
    out, err = capsys.readouterr()
    today = time.strftime("%Y-%m-%d_")
    assert out == "" and err.startswith(f"error: step 3 of [runs/{today}") and err.count("\n") == 1


@pytest.mark.slow
def test_diagnose_writes_gradient_files(work, no_picture, capsys):
    assert train("--diagnose", "--run", "run", "--steps", "10") == 0
    out, run = capsys.readouterr().out, work / "run"
    assert "           run/gradients.jsonl" in out and "           run/gradients.png" in out
    assert out.rindex("advice: ") > out.index("more text") and "not checked" not in out
    assert (run / "gradients.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["layer0.forget.grad_norm"] > 0
    assert main(["train", "--resume", "--run", "run"]) == 0  # with the options of the run


@pytest.mark.slow
def test_diverged_run_draws_gradients(work, capsys):
    rate = ["--optimizer", "sgd", "--clip", "0", "--learning-rate", "3e38", "--warmup", "19"]
    assert train("--diagnose", "--run", "run", *rate, "--dropout", "0", "--eval-every", "1") == 2
    assert "is not finite" in capsys.readouterr().err
    assert (work / "run" / "gradients.png").read_bytes().startswith(b"\x89PNG")
    rows = RunFolder(work / "run").gradients.read()
    assert rows and all(len(row["h"][0]) == 8 for row in rows)


def test_sample_starts_with_prompt(run, capsys):
    assert main(["sample", "--prompt", "cat", "--length", "20", "--temperature", "0"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and len(out) == 24 and out.startswith("cat") and set(out[:-1]) <= set(TEXT)
    assert main(["sample", "--run", str(run), "--length", "20", "--seed", "0"]) == 0
    again = capsys.readouterr().out
    assert (run / "sample.txt").read_text().startswith(again[:-1])


@pytest.mark.usefixtures("no_picture")
def test_ascii_terminal_replaces_characters(run, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert main(["train", "--resume"]) == 0
    narrow.flush()
    out = narrow.buffer.getvalue().decode("ascii")
    assert "LSTM, 1 ? 8 units" in out and "resumed     after step 20 of 20" in out


@pytest.mark.parametrize("width", [50, 80])
def test_progress_bar_fits_terminal(width, monkeypatch):
    monkeypatch.setattr(progress.time, "perf_counter", iter([5.0, 7.0, 7.5]).__next__)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with TrainScreen(console, 400, 2048, unit="nats", item_unit="characters") as screen:
        screen.begin(0)
        screen.bar.refresh()
        screen.progress(8, 2.5)
        screen.progress(16, 1.5)
        screen.record({"step": 16, "train_loss": 2.0, "val_loss": 1e30})
    shown = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue()))
    assert max(map(len, shown)) <= width
    assert any(line.startswith("step   0/400 ") and "compiling" in line for line in shown)
    assert any(line.startswith("step     16  training 2.000  validation 1e+30") for line in shown)
    last = [line for line in shown if line.startswith("step  16/400 ")][-1]
    assert "loss 1.500 nats" in last and last.rstrip().endswith(" left")
    assert ("8,192 characters/s" in last) == (width == 80)


def test_progress_lines_without_terminal(monkeypatch):
    """The speed excludes the evaluations; the remaining time includes them."""
    times = iter([5.0, 6.0, 16.0, 18.0, 26.0])
    monkeypatch.setattr(progress.time, "perf_counter", times.__next__)
    stream = io.StringIO()
    units = dict(unit="nats", item_unit="characters")
    with TrainScreen(Console(file=stream, width=20), 400, 2048, **units) as screen:
        screen.begin(0)
        screen.progress(8, 2.5)  # compiles
        screen.progress(10, 2.5)
        screen.record({"step": 10, "train_loss": 2.0, "val_loss": 3.0})
        screen.progress(16, 2.5)
        screen.record({"step": 20, "train_loss": 2.0, "val_loss": 3.0})
    assert stream.getvalue().splitlines() == [
        "step     10  training 2.000  validation 3.000 nats  4,096 characters/s",
        "step     20  training 2.000  validation 3.000 nats  5,461 characters/s  380 s left",
    ]


def test_record_line_shows_events():
    stream = io.StringIO()
    events = {"skipped": 1200, "overflows": 2, "carry_resets": 3, "rewinds": 1}
    with TrainScreen(Console(file=stream, width=20), 400, 2048) as screen:
        screen.record({"step": 16, "train_loss": 2.0, "val_loss": 3.0} | events)
    assert stream.getvalue().endswith(
        "validation 3.000  skipped 1,200  overflows 2  carry rows reset 3  rewinds 1\n"
    )


def test_first_dispatch_shows_no_speed(monkeypatch):
    stream = io.StringIO()
    with TrainScreen(Console(file=stream, width=20), 400, 2048) as screen:
        screen.progress(16, 2.5)
        screen.record({"step": 16, "train_loss": 2.0, "val_loss": 3.0})
    assert stream.getvalue() == "step     16  training 2.000  validation 3.000\n"


# Invalid input

BAD_TRAIN = [
    ("--text missing.txt", "missing.txt does not exist: check the name"),
    ("--text empty.txt", "empty.txt is empty: name a file"),
    ("--text binary.txt", "binary.txt is binary (NUL at byte 2), not text"),
    ("--text latin.txt", "latin.txt is not UTF-8 (at byte 3); its bytes fit cp1252"),
    ("--text .", ". is a folder: name one text file in it"),
    ("--text short.txt", "use a longer text"),
    ("--window 800", "needs 1601: use a smaller --batch or --window"),
    ("--optimizer adm", "unknown optimizer 'adm'; the nearest is 'adam'"),
    ("--learning-rate -1", "--learning-rate is -1.0, but must be a finite number above 0"),
    ("--learning-rate nan", "--learning-rate is nan, but must be a finite number above 0"),
    ("--hidden 0", "--hidden is 0, but must be a whole number from 1 to 1,048,576"),
    ("--dropout 1", "--dropout is 1.0, but must be a number in [0, 1)"),
    ("--warmup 20", "--warmup is 20, but must be less than --steps, which is 20"),
    (
        "--weight-decay .1",
        "nadam has no weight decay; these optimizers have one: nadamw",
    ),
    ("--set b1", "--set 'b1' is not a name and a value: write --set NAME=VALUE, such as "),
    ("--set b1=.5 --set b1=.6", "--set b1 is given twice, as .5 and as .6"),
    ("--set beta=.5", "--set beta=.5: nadam has no hyper-parameter 'beta'; there are b1, b2, eps"),
    ("--devices 3", "--devices 3 does not divide --batch 2; these do: 1, 2"),
    ("--tied", "--tied needs --embedding equal to --hidden, but they are 4 and 8"),
    ("--resume", "there is no run in runs/: pass the folder of a run"),
    ("--resume --run text.txt", "text.txt contains no run: there is no config.json"),
    ("--run text.txt", "text.txt: File exists; check the folder, or choose another"),
    ("--run text.txt/run", "text.txt/run: Not a directory; check the folder, or choose"),
]
BAD_SAMPLE = [
    ("--run nowhere", "nowhere contains no run: there is no config.json"),
    ("--prompt caX", "--prompt: the run's text does not contain 'X'; leave such characters out"),
    ("--prompt ''", "--prompt is empty: pass a value"),
    ("--length 0", "--length is 0, but must be a whole number from 1 to 10,000,000"),
    ("--temperature -1", "--temperature is -1.0, but must be a finite number of at least 0"),
    ("--temperature nan", "--temperature is nan, but must be a finite number of at least 0"),
]


def assert_refused(status: int, capsys, message: str) -> None:
    """Assert that there is a one-line error on stderr and no other output."""
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("arguments, message", BAD_TRAIN, ids=[a for a, _ in BAD_TRAIN])
def test_train_rejects_invalid_input(work, capsys, arguments, message):
    before = snapshot(work)
    assert_refused(train(*shlex.split(arguments)), capsys, message)
    assert snapshot(work) == before


@pytest.mark.parametrize("arguments, message", BAD_SAMPLE, ids=[a for a, _ in BAD_SAMPLE])
def test_sample_rejects_invalid_input(run, capsys, arguments, message):
    assert_refused(main(["sample", *shlex.split(arguments)]), capsys, message)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("", "already contains a run: resume it with --resume, replace it with --overwrite"),
        ("--resume --overwrite", "pass only one"),
        ("--resume --hidden 9", "the run in runs/a b has --hidden 8; leave these flags out"),
        ("--resume --no-tied --seed 5", "the run in runs/a b has --seed 0; leave"),
        ("--resume --steps 10", "--resume with --steps 10: the run has already taken 20 steps"),
        ("--resume --text other.txt", "the text other.txt differs from the text of the run"),
        (
            "--resume --learning-rate 0",
            "--learning-rate is 0.0, but must be a finite number above 0",
        ),
    ],
)
def test_existing_run_is_kept(run, work, capsys, arguments, message):
    (work / "other.txt").write_text(TEXT[::-1])
    before = snapshot(work)
    new = [] if arguments else ["--text", "text.txt"]
    status = main(["train", "--run", str(run), *new, *arguments.split()])
    assert_refused(status, capsys, message)
    assert snapshot(work) == before


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "tran",
        "train --lerning-rate 1",
        "train --steps many",
        "train --hidden 1.5",
        "train --schedule cosin",
        "train --dtype float8",
        "train --run",
        "train --resume --lerning-rate 1",
        "sample --length",
        "sample 5",
        "explain sgd --lerning-rate 1",
        "explain sgd --plot",
    ],
)
def test_wrong_flags_exit_with_status_2(work, capsys, arguments):
    before = snapshot(work)
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and "lstm-optax" in err and "Traceback" not in err
    assert snapshot(work) == before


def test_invalid_input_needs_no_jax(work, finished):
    run = shlex.quote(str(finished / "runs/a b"))
    late = ("short.txt", "--window 800", "--run text.txt", "--run text.txt/run", "beta=.5")
    lines = [
        f"train --text text.txt {shlex.join(SIZES)} {arguments}"
        for arguments, _ in BAD_TRAIN
        if not arguments.endswith(late)
    ]
    lines += [f"sample --run {run} {arguments}" for arguments, _ in BAD_SAMPLE]
    (work / "folder.png").mkdir()
    lines += [f"explain {arguments}" for arguments, _ in BAD_EXPLAIN]
    lines += [f"{command} --help" for command in ("", *cli.COMMANDS)]
    lines += ["advise --run nowhere", "report nowhere", "sweep --task addin", "compare sgd sgd"]
    lines += ["train --steps x", "x", "sample", "explain sgd --learning-rate x"]
    lines += [f"train --resume --run {run} {more}" for more in ("--hidden 9", "--overwrite")]
    assert len(lines) > 25
    code = (
        "import sys, shlex; from lstm_optax.commands.main import main\n"
        "for line in sys.stdin:\n"
        "    try: status = main(shlex.split(line))\n"
        "    except SystemExit as end: status = end.code\n"
        "    assert 'jax' not in sys.modules, line\n"
        "    assert status == (0 if 'help' in line else 2), line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(lines), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_entry_points_run_main():
    (script,) = entry_points(group="console_scripts", name="lstm-optax")
    assert script.load() is main
    done = subprocess.run(
        [sys.executable, "-m", "lstm_optax", "train", "--steps", "0"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --steps is 0, but must be a whole number from 1 to 2,147,483,647\n"
    )


def test_bugs_are_not_hidden(run, monkeypatch):
    monkeypatch.setattr(cli, "run_sample", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample"])


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(28, "No space left on device"), "No space left on device; free some space, and"),
        (
            OSError(13, "Permission denied", "x"),
            "x: Permission denied; check the folder, or",
        ),
        (OSError(27, "File too large"), "File too large; raise the limit, such as by `ulimit"),
        (OSError(24, "Too many open files"), "Too many open files; raise the limit, such as by"),
        (CheckpointError("cannot write x", [5]), "cannot write x; then continue with --resume"),
        (CheckpointError("cannot write x", []), "cannot write x; then train again with --over"),
        (CheckpointError("all damaged"), "all damaged: train again with --overwrite"),
        (
            MemoryError(),
            "out of memory: use a smaller --batch, --window or --hidden; in a study, by",
        ),
        (RuntimeError("INTERNAL: Out of memory allocating 9 bytes"), "out of memory: use a"),
        (RuntimeError("RESOURCE_EXHAUSTED: …"), "out of memory: use a smaller --batch"),
    ],
    ids=str,
)
def test_system_errors_are_one_line(run, monkeypatch, capsys, error, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run_sample", fail)
    assert_refused(main(["sample"]), capsys, message)


# explain


def test_explain_output(work, capsys):
    names = ["sgd", "presets.keras.SGD", "adam", *["optax.contrib.muon"] * 4]
    assert main(["explain", *names, "--learning-rate", ".5", "--plot", "a[b].png"]) == 0
    out, err = capsys.readouterr()
    header, *rows = [line for line in out.splitlines() if line.startswith(("┃", "│"))]
    assert err == "" and [name.strip() for name in header.split("┃")[2:-1]] == names
    cells = {row.split("│")[1].strip(): row.split("│")[2:-1] for row in rows}
    assert [cell.strip() for cell in cells["in units of"]] == ["rate 0.5"] * 7
    assert [cell.strip() for cell in cells["bytes per parameter"][:3]] == ["0", "4", "8"]
    assert [cell.strip() for cell in cells["within 10 % from"]] == ["step 1"] * 7
    notes = [line for line in out.splitlines() if line.startswith("adam: Clipping the steps ")]
    assert len(notes) == 1 and notes[0].endswith("Clip the gradient, before the optimizer.")
    assert out.endswith("\nsaved a[b].png\n")
    assert Path("a[b].png").read_bytes().startswith(b"\x89PNG")


def test_explain_with_set_values(work, capsys):
    name, values = "presets.tf1.MomentumOptimizer", ["momentum=0.5", "use_nesterov=true"]
    assert main(["explain", name, "--set", values[0], "--set", values[1]]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\nset: momentum=0.5, use_nesterov=true\n" in out
    row = next(line for line in out.splitlines() if line.startswith("│   step 2 "))
    assert row.split("│")[2].strip() == "1.750"  # 1, then 1 + 0.5 (1 + 0.5)


def test_explain_splits_wide_table():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    assert Explain(("sgd", "sgd", "presets.torch.NAdam", "adam")).run(console) == 0
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.count("┃") - 2 for line in lines if "┃ measure" in line] == [3, 1]


BAD_EXPLAIN = [
    ("nadm", "unknown optimizer 'nadm'; the nearest is 'nadam'; there are sgd, "),
    ("sgd torch.NAdam", "unknown optimizer 'torch.NAdam'; there are sgd, "),
    ("", "name at least one optimizer: sgd, "),
    ("sgd --learning-rate 0", "--learning-rate is 0.0, but must be a finite number above 0"),
    ("sgd --learning-rate nan", "--learning-rate is nan, but must be a finite number above 0"),
    ("sgd --set momentum", "--set 'momentum' is not a name and a value: write --set NAME=VALUE"),
    ("sgd --plot a.jpgg", "--plot a.jpgg must end in .png, .svg, .pdf"),
    ("sgd --plot picture", "--plot picture must end in .png, .svg, .pdf"),
    (
        "sgd --plot no/a.png",
        "--plot no/a.png cannot be written: the folder no does not exist",
    ),
    (
        "sgd --plot folder.png",
        "--plot folder.png cannot be written: it is a folder; choose",
    ),
]
BAD_EXPLAIN_LATE = [  # errors that need JAX
    ("presets.torch.NAdm", "the nearest is 'presets.torch.NAdam'\n"),
    ("presets.tf1.MomentumOptimizer", "needs momentum in addition to its learning rate"),
    ("optax.trace", "optax.trace is not an optimizer: it takes no learning rate"),
    ("optax.lbfgs", "optax.lbfgs cannot be measured: TypeError: "),
    ("adam sgd --set b1=.5", "--set b1=.5: sgd has no hyper-parameter except the learning rate"),
    ("adam --set b1=2", "--set b1=2: b1 is 2.0, but must be a number in [0, 1)"),
]


@pytest.mark.parametrize(
    "arguments, message",
    BAD_EXPLAIN + BAD_EXPLAIN_LATE,
    ids=[a for a, _ in BAD_EXPLAIN + BAD_EXPLAIN_LATE],
)
def test_explain_rejects_invalid_input(work, capsys, arguments, message):
    (work / "folder.png").mkdir()
    before = snapshot(work)
    assert_refused(main(["explain", *shlex.split(arguments)]), capsys, message)
    assert snapshot(work) == before


def test_failed_picture_is_one_error(work, capsys, monkeypatch):
    figure = Mock()
    figure.savefig.side_effect = OSError(28, "No space left on device")
    monkeypatch.setattr(response, "response_figure", lambda responses: figure)
    assert main(["explain", "sgd", "--plot", "a.png"]) == 2
    out, err = capsys.readouterr()
    assert "bytes per parameter" in out
    assert err == (
        "error: --plot a.png cannot be written: No space left on device; choose another file\n"
    )


# Interruption and resume


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that schedules an action after a step."""

    def arrange(step: int, action) -> None:
        progress = TrainScreen.progress

        def watched(self, now, loss):
            progress(self, now, loss)
            if now == step and loss == loss:
                action()

        monkeypatch.setattr(TrainScreen, "progress", watched)

    return arrange


@pytest.mark.slow
def test_ctrl_c_saves_checkpoint(work, finished, at_step, capfd):
    at_step(8, lambda: signal.raise_signal(signal.SIGINT))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert train("--run", "it's mine") == 130
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    out, err = capfd.readouterr()
    assert err == "\nstopping after this dispatch; press Ctrl-C again to stop without saving\n"
    *_, message, hint, command = out.splitlines()
    assert message == "interrupted after step 8; a checkpoint is saved"
    assert hint == "Continue with:"
    assert (work / "it's mine" / "loss.png").exists()
    program, *arguments = shlex.split(command)
    assert program == "lstm-optax" and main(arguments) == 0
    out = capfd.readouterr().out
    assert "resumed     after step 8 of 20" in out and "a sample" in out
    assert same(work / "it's mine", finished / "runs/a b")


@pytest.mark.usefixtures("no_picture")
def test_sigterm_saves_checkpoint(work, at_step, capfd, request):
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("it would end the process"))
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
    at_step(8, lambda: signal.raise_signal(signal.SIGTERM))
    assert train("--run", "run") == 130
    assert "Continue with:\n  lstm-optax train --resume --run run\n" in capfd.readouterr().out
    assert Checkpoints(work / "run" / "checkpoints").steps() == [5, 8]


@pytest.fixture
def interrupt_at(monkeypatch):
    """Return a function that replaces another by a Ctrl-C, and the end of the process by an error.

    Only the main thread ends: the thread that watches for signals would end the process later.
    """

    def end(status):
        if threading.current_thread() is threading.main_thread():
            raise Ended(status)

    def arrange(name: str) -> None:
        monkeypatch.setattr(os, "_exit", end)
        monkeypatch.setattr(name, lambda *_, **__: signal.raise_signal(signal.SIGINT))

    return arrange


class Ended(BaseException):
    """The process would have ended."""


@pytest.mark.parametrize("phase", ["corpus.Corpus.count_ngrams", "train.fit"])
def test_ctrl_c_before_first_step_leaves_nothing(work, interrupt_at, capfd, phase):
    before = snapshot(work)
    interrupt_at(f"lstm_optax.runs.{phase}")
    with pytest.raises(Ended, match="130"):
        train()
    assert capfd.readouterr().err.startswith("\nstopped; nothing was saved\n")
    assert snapshot(work) == before and not (work / "runs").exists()


@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_keeps_run_not_yet_replaced(run, work, interrupt_at, capfd, saved):
    if not saved:
        shutil.rmtree(run / "checkpoints")
    before = snapshot(work)
    interrupt_at("lstm_optax.runs.train.prepare")
    with pytest.raises(Ended, match="130"):
        train("--run", str(run), "--overwrite")
    assert "stopped; the run in runs/a b was not replaced\n" in capfd.readouterr().err
    assert snapshot(work) == before


@pytest.mark.parametrize("phase", ["resume.check_resume", "train.fit"])
def test_ctrl_c_keeps_resumed_run(run, work, interrupt_at, capfd, phase):
    def contents():
        return {path: data for path, data in snapshot(work).items() if "config" not in path}

    before = contents()
    interrupt_at(f"lstm_optax.runs.{phase}")
    with pytest.raises(Ended, match="130"):
        main(["train", "--resume", "--run", str(run), "--steps", "30"])
    again = "stopped. Continue with:\n  lstm-optax train --resume --run 'runs/a b'\n"
    assert again in capfd.readouterr().err and contents() == before


@pytest.mark.usefixtures("no_picture")
def test_resume_continues_newest_run(run, work, finished, capsys):
    shutil.copytree(run, work / "runs/older")
    shutil.copytree(run, work / "elsewhere")
    os.utime("runs/older/config.json", (1, 1))
    damage(run, 20)
    assert main(["train", "--resume"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(
        "warning: the checkpoint of step 20 is damaged; continuing from step 15\n"
    )
    assert "run folder  runs/a b " in out and "step     20  training " in out
    assert same(run, finished / "runs/a b")


@pytest.mark.parametrize("given, expected", [([], ("b1=0.5",)), (["b1=0.7"], ("b1=0.7",))])
def test_given_settings_replace_stored_ones(work, given, expected):
    run = RunFolder(Path("run"))
    run.create(overwrite=False)
    run.write_config(TrainConfig(set=("b1=0.5",)), {"text": {}})
    flags = [part for text in given for part in ("--set", text)]
    command = cli._parse(["train", "--resume", "--run", "run", *flags])
    assert command.config.set == expected


@pytest.mark.slow
@pytest.mark.usefixtures("no_picture")
def test_set_values_are_stored_and_resumed(work, capsys):
    sizes = ["--steps", "2", "--eval-every", "1", "--warmup", "0", "--run", "run"]
    settings = ["--set", "b1=0.5", "--set", "eps=1e-3"]
    assert train(*sizes, *settings) == 0
    assert "optimizer   nadam, learning rate 0.016 constant, b1=0.5, eps=1e-3, clip 1" in (
        capsys.readouterr().out
    )
    assert json.loads(Path("run/config.json").read_text())["config"]["set"] == settings[1::2]
    losses = [row["val_loss"] for row in RunFolder(Path("run")).records.read()]
    before = snapshot(work)
    resume = ["train", "--resume", "--run", "run"]
    assert_refused(
        main([*resume, "--set", "b1=0.9"]), capsys, "the run in run has --set b1=0.5 --set eps=1e-3"
    )
    assert snapshot(work) == before
    assert main([*resume, *settings, "--steps", "3"]) == 0  # the same values may be repeated
    assert main([*resume, "--steps", "4"]) == 0
    records = RunFolder(Path("run")).records.read()
    assert [row["val_loss"] for row in records[:2]] == losses and len(records) == 4


def test_more_steps_need_constant_schedule(run, work, capsys):
    folder = RunFolder(run)
    config, facts = folder.read_config()
    folder.write_config(replace(config, schedule="cosine"), facts)
    before = snapshot(work)
    status = main(["train", "--resume", "--steps", "30"])
    assert_refused(status, capsys, "the run was started with --steps 20, on which its cosine")
    assert snapshot(work) == before


def test_damaged_run_is_rejected(run, capsys):
    damage(run, 15)
    damage(run, 20)
    for command in ("train", "sample"):
        status = main([command, "--run", str(run), *(["--resume"] if command == "train" else [])])
        assert_refused(status, capsys, "is damaged (steps 15, 20): train again with --overwrite")
    config = run / "config.json"
    config.write_text(config.read_text().replace('"hidden": 8', '"hidden": 9'))
    for command in (["train", "--resume"], ["sample"]):
        assert_refused(main(command), capsys, "config.json is damaged (its SHA-256 does not match)")


def test_damaged_best_checkpoint_warning(run, capsys):
    damage(run, 20)
    assert main(["sample", "--length", "5"]) == 0
    out, err = capsys.readouterr()
    assert len(out) == 7
    assert err == "warning: the checkpoint of step 20 is damaged; using the checkpoint of step 15\n"


@pytest.mark.usefixtures("no_picture")
def test_overwrite_replaces_only_run(run, capsys):
    (run / "notes.txt").write_text("mine")
    assert train("--run", str(run), "--overwrite", "--steps", "8") == 0
    warning = f"warning: {run} keeps what the replaced run did not write: notes.txt\n"
    assert capsys.readouterr().out.startswith(warning)
    assert {path.name for path in run.iterdir()} == FILES | {"notes.txt"}
    assert steps_of(run) == [5, 8]
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("flags", ["--resume", "--overwrite", ""])
def test_running_run_is_shared(run, work, capsys, flags):
    """Another thread trains in the folder; it counts as another process."""
    before = snapshot(work)
    with ThreadPoolExecutor(1) as other:
        held = hold_folder(run)
        other.submit(held.__enter__).result(timeout=10)
        new = [] if flags == "--resume" else ["--text", "text.txt"]
        status = main(["train", "--run", str(run), *new, *flags.split()])
        assert_refused(status, capsys, f"runs/a b is in use by process {os.getpid()} on ")
        assert main(["sample", "--length", "5"]) == 0 and main(["advise"]) == 0
        other.submit(held.__exit__, None, None, None).result(timeout=10)
    assert snapshot(work) == before


@pytest.mark.usefixtures("no_picture")
def test_run_is_held_from_check_to_picture(run, monkeypatch):
    """From the check of a run to the picture, no other process can write to its folder."""
    moments = []

    def watch(name):
        module, function = name.rsplit(".", 1)
        original = getattr(importlib.import_module(module), function)

        def watched(*args, **options):
            moments.append((function, not is_free(run)))
            return original(*args, **options)

        monkeypatch.setattr(name, watched)

    watch("lstm_optax.runs.corpus.corpus_of")
    watch("lstm_optax.commands.train.prepare_devices")
    watch("lstm_optax.runs.train.fit")
    watch("lstm_optax.commands.train.save_picture")
    assert train("--run", str(run), "--overwrite", "--steps", "8") == 0
    names = ["corpus_of", "prepare_devices", "fit", "save_picture"]
    assert moments == [(name, True) for name in names]
    assert is_free(run)


def test_warning_of_missing_locks_is_shown(run, work, capsys, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert main(["train", "--run", str(run), "--overwrite", "--text", "empty.txt"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"warning: {run} cannot be locked (") and out.count("\n") == 1
    assert err.startswith("error: empty.txt ")


@pytest.mark.slow
@pytest.mark.usefixtures("no_picture")
def test_two_processes_train_in_one_folder(work, finished):
    """The second one, that resumes or overwrites, ends; the first one is not disturbed."""
    begin = ["train", "--text", "text.txt", *SIZES, "--steps", "800", "--run", "run"]
    first = outside(COMMAND, *begin)
    deadline = time.monotonic() + 120
    while not Path("run/metrics.jsonl").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for again in (["train", "--run", "run", "--resume"], [*begin, "--overwrite"], begin):
        command = [sys.executable, "-c", COMMAND, *again]
        second = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert second.returncode == 2 and f"in use by process {first.pid} on" in second.stderr
    assert first.wait(timeout=120) == 0
    assert steps_of(work / "run") == list(range(5, 801, 5))


@pytest.mark.slow
@pytest.mark.usefixtures("no_picture")
def test_early_stop_message(work, capsys):
    still = "--optimizer sgd --learning-rate 1e-30 --patience 1".split()
    assert train("--run", "run", *still) == 0
    out = capsys.readouterr().out
    early = "stopped early after step 10: the validation loss has not improved for 1 evaluations"
    assert early in out and "LSTM, step 5 " in out


KILL = """
import os, signal, sys
from lstm_optax.commands.main import main
from lstm_optax.commands.explain import Explain
from lstm_optax.checkpoints import checkpoint_files
write = checkpoint_files.write_atomically

def write_or_die(path, text):
    if path.stem == "10":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, text)

checkpoint_files.write_atomically = write_or_die
sys.exit(main(sys.argv[1:]))
"""


COMMAND = "import sys; from lstm_optax.commands.main import main; sys.exit(main(sys.argv[1:]))"


def outside(code: str, *arguments: str) -> subprocess.Popen:
    """Run Python code in another process with the same JAX settings."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(jax.config.jax_num_cpu_devices),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


@pytest.mark.slow
@pytest.mark.usefixtures("no_picture")
def test_killed_run_resumes_exactly(work, finished, capsys):
    """The run is killed at step 10 after the record, before the manifest of the checkpoint."""
    process = outside(KILL, "train", "--text", "text.txt", *SIZES, "--run", "run")
    assert process.wait() == -signal.SIGKILL
    # the checkpoint is written in the background: the training may have gone further
    assert steps_of(work / "run")[:2] == [5, 10]
    assert (work / "run/checkpoints/10").exists()
    assert main(["train", "--resume", "--run", "run"]) == 0
    assert "resumed     after step 5 of 20" in capsys.readouterr().out
    assert same(work / "run", finished / "runs/a b")


@pytest.mark.parametrize(
    "most", [pytest.param(1, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.soak)]
)
def test_repeatedly_killed_run_resumes_exactly(work, most):
    """Runs are killed at random times, as often as `most` in all; each ends as an unbroken one."""
    steps = ["--steps", str(100 + 3 * most), "--patience", "100"]
    begin = ["train", "--text", "text.txt", *SIZES, *steps, "--run"]
    assert outside(COMMAND, *begin, "unbroken").wait() == 0
    random, kills, runs = np.random.default_rng(0), 0, 0

    def newest(run: Path) -> int:
        """Return the step of the newest complete checkpoint; 0 for none."""
        return max(Checkpoints(run / "checkpoints").steps(), default=0)

    while kills < most:
        runs += 1
        run = work / f"killed {runs}"
        arguments, before_run = [*begin, str(run)], kills
        while True:
            process, before = outside(COMMAND, *arguments), newest(run)
            while process.poll() is None and kills < most:
                if newest(run) > before:
                    time.sleep(random.uniform(0, 0.3))
                    process.kill()
                    break
                time.sleep(0.005)
            if process.wait() == 0:
                break
            assert process.returncode == -signal.SIGKILL
            arguments, kills = ["train", "--resume", "--run", str(run)], kills + 1
        assert kills > before_run
        assert same(run, work / "unbroken")


@pytest.mark.soak
def test_memory_of_long_run_is_flat(work):
    steps = ["--steps", "20000", "--eval-every", "500", "--patience", "100"]
    arguments = ["train", "--text", "text.txt", *SIZES, *steps, "--run", "long"]
    assert outside(COMMAND, *arguments).wait() == 0
    records = read_records(work / "long/metrics.jsonl")
    memory = [r["host_memory"] for r in records if r["step"] >= 5000]
    assert len(memory) == 31
    assert max(memory) < 1.01 * memory[0], memory


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lstm-optax {lstm_optax.__version__}\n"
