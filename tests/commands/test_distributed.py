"""`lstm-optax train --distributed`: real processes that end together, and its errors."""

import json
import re
import signal
import time

import jax
import pytest
from processes import run_processes, started_processes

from lstm_optax import Checkpoints
from lstm_optax.commands.main import main
from lstm_optax.runs import OptionError
from lstm_optax.runs.processes import ProcessOptions, joined_processes

PROGRAM = """
import os
import sys
from lstm_optax.commands.main import main
address, count, process = (
    os.environ[name] for name in ("JAX_COORDINATOR_ADDRESS", "PROCESS_COUNT", "PROCESS_ID")
)
place = ["--coordinator", address, "--processes", count, "--process", process]
sys.exit(main(["train", "--distributed", *place, *sys.argv[1:]]))
"""
IMPATIENT = """
from lstm_optax.runs import processes
assert processes.HEARTBEAT_TIMEOUT == 30
processes.HEARTBEAT_TIMEOUT = 10
"""
SLURM = """
import os
import sys
from lstm_optax.commands.main import main
os.environ |= {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": os.environ["PROCESS_COUNT"],
    "SLURM_PROCID": os.environ["PROCESS_ID"],
    "SLURM_LOCALID": os.environ["PROCESS_ID"],
}
sys.exit(main(["train", "--distributed", *sys.argv[1:]]))
"""
TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 60)
LONG = 1_000_000  # steps of a run that a test ends


@pytest.fixture
def flags(tmp_path):
    """Return a function from a number of steps to the flags of a run in tmp_path / "run"."""
    (tmp_path / "text").write_text(TEXT)
    sizes = "--hidden 8 --embedding 4 --batch 12 --window 8 --schedule constant --eval-every 5"
    place = ["--text", str(tmp_path / "text"), "--run", str(tmp_path / "run")]
    return lambda steps: [*sizes.split(), *place, "--steps", str(steps), "--patience", str(LONG)]


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [row[name] for row in records(folder) for name in ("train_loss", "val_loss")]


def wait_for_records(folder, count, limit=100):
    """Wait until a run has written a number of records, and its first checkpoint."""
    end = time.monotonic() + limit

    def has_written():
        if not (folder / "metrics.jsonl").exists() or len(records(folder)) < count:
            return False
        return Checkpoints(folder / "checkpoints").steps()

    while not has_written():
        assert time.monotonic() < end, "the run has not written its records and a checkpoint"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program, more",
    [pytest.param(PROGRAM, [], marks=pytest.mark.soak), (SLURM, ["--shard-state"])],
)
def test_processes_train_as_one(flags, tmp_path, program, more):
    results = run_processes(program, 3, *flags(15), *more, timeout=200)
    assert [result.returncode for result in results] == [0, 0, 0], results
    assert "3 × cpu in 3 processes, each with 4 of 12 rows" in results[0].stdout
    for result in results[1:]:
        assert all(line.startswith("[Gloo]") for line in result.stdout.splitlines())
    found = losses(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "three")
    assert main(["train", *flags(15), "--devices", "1"]) == 0
    assert found == pytest.approx(losses(tmp_path / "run"), rel=1e-6)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {path.name for path in (tmp_path / "three").iterdir()} == names


@pytest.mark.slow
def test_signal_to_one_stops_all(flags, tmp_path):
    run = tmp_path / "run"
    with started_processes(PROGRAM, 2, *flags(LONG)) as processes:
        wait_for_records(run, 2)
        processes[1][0].send_signal(signal.SIGTERM)
        assert [process.wait(60) for process, _ in processes] == [130, 130]
    step = Checkpoints(run / "checkpoints").steps()[-1]
    assert step >= records(run)[-1]["step"]
    results = run_processes(PROGRAM, 3, *flags(step + 5), "--resume", timeout=200)
    assert [result.returncode for result in results] == [0, 0, 0], results
    assert "the run used 2 devices and continues with 3" in results[0].stdout
    assert records(run)[-1]["step"] == step + 5


NAMED = r"unhealthy \(stopped sending heartbeats\):\n\S*2\n"
NO_LEADER = "Either the leader task was preempted/died"


@pytest.mark.slow
@pytest.mark.parametrize("dead, message", [(2, NAMED), (0, NO_LEADER)])
def test_killed_process_ends_the_others(flags, tmp_path, dead, message):
    run = tmp_path / "run"
    with started_processes(IMPATIENT + PROGRAM, 4, *flags(LONG)) as processes:
        wait_for_records(run, 2)
        processes[dead][0].kill()
        others = [pair for i, pair in enumerate(processes) if i != dead]
        end = time.monotonic() + 60
        for process, output in others:
            assert process.wait(max(end - time.monotonic(), 0.1)) != 0
            # process 0 may end before it has told all others which process has died
            assert re.search(f"{NAMED}|{NO_LEADER}", output.read_text())
        assert re.search(message, others[0][1].read_text())
    whole = Checkpoints(run / "checkpoints").newest_whole()[0]
    assert main(["train", *flags(whole + 10), "--resume", "--devices", "1"]) == 0
    assert [row["step"] for row in records(run)] == list(range(5, whole + 15, 5))


@pytest.mark.slow
def test_error_in_first_process_ends_all(flags, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").mkdir()  # cannot be written
    results = run_processes(PROGRAM, 2, *flags(15), "--overwrite", timeout=100)
    assert all(result.returncode for result in results)


@pytest.mark.parametrize(
    "given, message",
    [
        (["--coordinator", "a:1"], "--coordinator a:1 needs --distributed"),
        (["--processes", "2"], "--processes 2 needs --distributed"),
        (["--distributed"], "--distributed needs --run DIR: a folder that all processes see"),
        (["--distributed", "--coordinator", "node1"], "node1 is not HOST:PORT, such as node1:9911"),
        (
            ["--distributed", "--processes", "2", "--process", "2"],
            "--process 2 must be less than --processes 2: the processes are numbered from 0",
        ),
        (["--distributed", "--run", "r", "--devices", "2"], "--devices 2 and --distributed, which"),
    ],
)
def test_bad_process_flags_are_rejected(given, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_missing_cluster_names_the_flags(monkeypatch):
    def initialize(*args, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(OptionError, match=r"\(coordinator_address .*pass --coordinator HOST:PORT"):
        with joined_processes(ProcessOptions(distributed=True)):
            pass


def test_batch_must_fit_all_devices(monkeypatch, tmp_path):
    from lstm_optax import TrainConfig
    from lstm_optax.runs.devices import use_all_devices

    assert use_all_devices(TrainConfig(batch=16)).devices == 8
    with pytest.raises(OptionError, match="--batch 12: the 1 processes have 8 devices, which do "):
        use_all_devices(TrainConfig(batch=12))
