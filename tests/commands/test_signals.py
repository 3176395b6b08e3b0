"""Signals and closed outputs: what ends, what is saved, with which status."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lstm_optax import Checkpoints
from lstm_optax.commands.output import keep_running
from lstm_optax.commands.signals import SIGNALS, STOP
from lstm_optax.records import MEASURED

LIMIT = 60  # seconds that a process may take to end
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # runs no handler for minutes


def start(*command: str, **options) -> subprocess.Popen:
    """Start a process of Python with pipes for its input, its output and its errors."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, *command], **pipes | options, env=environment)


def heeding(body: str, **attributes) -> subprocess.Popen:
    """Start a process that runs lines inside the context, and wait until it is there."""
    lines = [f"    STOP.{name} = {value!r}" for name, value in attributes.items()]
    lines += ["    print('ready', flush=True)", *(f"    {line}" for line in body.splitlines())]
    head = "import hashlib, os, signal, sys, time\nfrom lstm_optax.commands.signals import STOP\n"
    process = start("-c", head + "with STOP:\n" + "\n".join(lines))
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)  # so that a call in C has begun
    return process


def end_of(process: subprocess.Popen) -> tuple[int, str, str]:
    """Return the exit status and the rest of the output and of the errors of a process."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_call_in_c(number):
    process = heeding(IN_C)
    process.send_signal(number)
    assert end_of(process) == (130, "", "\nstopped\n")


def test_signal_requests_stop_while_saving():
    before = [signal.getsignal(number) for number in SIGNALS]
    assert len(SIGNALS) == 5 or os.name == "nt"
    for number in SIGNALS:
        noted = []
        with STOP:
            STOP.saving, STOP.note = True, noted.append
            assert not STOP.requested()
            signal.raise_signal(number)
            assert STOP.requested()
        assert noted == [signal.Signals(number).name]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_second_ctrl_c_ends_at_once():
    process = heeding(IN_C, saving=True)
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == b"\n"
    assert b"stopping after this dispatch; press Ctrl-C again" in process.stderr.readline()
    time.sleep(0.4)  # a copy comes within 0.3 s
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (130, "", "\nstopped\n")


def test_copies_of_signal_do_not_end():
    """A wrapper may pass on a signal that the process has received itself."""
    process = heeding("time.sleep(1)\nprint('saved', STOP.requested())", saving=True)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.05)
    status, out, err = end_of(process)
    assert (status, out) == (0, "saved True\n") and err.count("stopping") == 1


def test_save_within_ends_slow_save():
    process = heeding(IN_C, saving=True, save_within=0.2)
    process.send_signal(signal.SIGTERM)
    status, _, err = end_of(process)
    assert status == 2
    assert err.endswith("\nerror: not saved within 0.2 s (--save-within)\nstopped\n")


def test_ignored_signal_stays_ignored():
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with STOP:
            signal.raise_signal(signal.SIGHUP)
            assert not STOP.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_to_forked_child_is_not_heeded():
    body = (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "_, status = os.waitpid(child, 0)\n"
        "time.sleep(0.5)\n"
        "print(os.WTERMSIG(status), STOP.requested())"
    )
    assert end_of(heeding(body))[:2] == (0, "15 False\n")  # Python 3.12 warns of fork


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_command_runs_on_without_output(kind, capfd):
    reader, writer = os.pipe() if kind == "pipe" else os.openpty()
    stream, notes = os.fdopen(writer, "w"), []
    console = Console(file=stream)
    keep_running(console, notes.append)
    console.print("seen")
    assert os.read(reader, 4) == b"seen"
    os.close(reader)
    for _ in range(3):
        console.print("dropped")
    stream.close()
    reason = "Broken pipe" if kind == "pipe" else "Input/output error"
    assert notes == [f"the output is closed ({reason}); the command runs on without it"]
    assert capfd.readouterr().err.count(notes[0]) == 1


def test_ctrl_c_while_text_is_read(tmp_path):
    process = start("-m", "lstm_optax", "train", "--text", "/dev/stdin", cwd=tmp_path)
    process.stdin.write(b"text " * 100_000)  # more than the pipe holds: the program reads it
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 130
    assert process.stderr.read() == b"\nstopped\n" and not list(tmp_path.iterdir())
    process.communicate()


# A whole training


SIZES = (
    "--hidden 8 --embedding 4 --batch 2 --window 8 --schedule constant --steps 400 --eval-every 5"
).split()


@pytest.fixture
def text(tmp_path, monkeypatch) -> Path:
    """Change to a working folder with a text."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30))
    return path


def train(*arguments: str, **options) -> subprocess.Popen:
    return start("-m", "lstm_optax", "train", "--text", "text.txt", *SIZES, *arguments, **options)


def records(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) | dict.fromkeys(MEASURED) for line in lines]


def wait_for_records(run: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until a run has some records."""
    limit = time.monotonic() + LIMIT
    while len(records(run)) < count:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number",
    [
        # SIGINT and SIGHUP are those of the two tests below
        pytest.param(n, marks=pytest.mark.soak if n in (1, 2) else pytest.mark.slow)
        for n in SIGNALS
    ],
)
def test_signal_saves_and_resumes(text, number):
    process = train("--run", "run", "--steps", "100000")
    wait_for_records(Path("run"), 3, process)
    process.send_signal(number)
    status, out, err = end_of(process)
    assert status == 130 and "stopping after this dispatch" in err and "Traceback" not in err
    assert out.endswith("Continue with:\n  lstm-optax train --resume --run run\n")
    last = Checkpoints(Path("run/checkpoints")).steps()[-1]
    assert f"interrupted after step {last:,}; a checkpoint is saved" in out
    name = signal.Signals(number).name
    assert Path("run/train.log").read_text().endswith(f"{name}: the training stops\n")


@pytest.mark.slow
def test_timeout_program_saves(text):
    """The program of coreutils may send the signal both to the process and to its group."""
    command = ["timeout", "--signal=INT", "12", sys.executable, "-m", "lstm_optax", "train"]
    arguments = ["--text", "text.txt", *SIZES, "--run", "run", "--steps", "1000000"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, *arguments], env=environment, timeout=LIMIT, capture_output=True
    )
    assert done.returncode == 124 and b"a checkpoint is saved" in done.stdout


@pytest.mark.slow
def test_training_continues_without_output(text):
    process = train("--run", "run", "--steps", "60")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(LIMIT) == 0
    log = Path("run/train.log").read_text()
    assert log.count("\n") == 1 and "the output is closed (Broken pipe); the command runs" in log
    assert [record["step"] for record in records(Path("run"))][-1] == 60
    assert Path("run/sample.txt").exists()
    process.stdin.close(), process.stderr.close()


@pytest.mark.slow
def test_closed_terminal_saves(text):
    """It sends SIGHUP, and every write to it fails."""
    terminal, inner = os.openpty()
    process = train(
        "--run",
        "run",
        "--steps",
        "100000",
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    wait_for_records(Path("run"), 3, process)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)  # from the shell, if not from the system
    assert process.wait(LIMIT) == 130
    last = Checkpoints(Path("run/checkpoints")).steps()[-1]
    assert Checkpoints(Path("run/checkpoints")).is_whole(last)
    assert "SIGHUP: the training stops" in Path("run/train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sweep", "compare"])
def test_study_says_how_to_continue(text, command):
    arguments = ["--task", "saddle", "--steps", "40000", "--eval-every", "400", "--rates", "0.1"]
    process = start("-m", "lstm_optax", command, *arguments, "--extensions", "0")
    records_of = lambda: list(Path("studies").glob("*/records.jsonl"))  # noqa: E731
    limit = time.monotonic() + LIMIT
    while not records_of() or b"evaluation" not in records_of()[0].read_bytes():
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, _, err = end_of(process)
    folder = records_of()[0].parent
    assert status == 130 and f"the finished trials are in {folder}. Continue with:\n" in err
    assert err.endswith(f"--extensions 0 --out {folder}\n")


@pytest.mark.soak
def test_no_ctrl_c_is_lost(text):
    """40 at random moments of the first 6 seconds; each run that has a checkpoint resumes."""
    random = np.random.default_rng(0)
    unbroken = train("--run", "unbroken")
    assert end_of(unbroken)[0] == 0
    resumed, begun = 0, time.monotonic()
    subprocess.run([sys.executable, "-m", "lstm_optax", "--version"], check=True)
    ready = time.monotonic() - begun  # before, Python itself may not be
    for number in range(40):
        run, delay = Path(f"run{number}"), random.uniform(0, 6)
        process = train("--run", str(run))
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        status, out, err = end_of(process)
        took = time.monotonic() - sent
        print(f"{delay:.2f} s: status {status} after {took:.2f} s, {run.exists()}")
        if delay > ready:
            assert "Traceback" not in err
            assert status == 130 or (status == 0 and "a sample" in out)
        assert status != 0 or delay > 1
        if run.exists():
            assert Checkpoints(run / "checkpoints").steps()
            again = train("--resume", "--run", str(run))
            assert end_of(again)[0] == 0
            assert records(run) == records(Path("unbroken"))
            resumed += 1
    print(f"{resumed} runs resumed")
