"""The command `lstm-optax advise`: its output, its default run, and its errors."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from lstm_optax import TrainConfig
from lstm_optax.commands.main import main
from lstm_optax.runs.run_folder import RunFolder

NOT_CHECKED = "not checked: gates and the size of updates, which need lstm-optax train --diagnose"


def write_run(
    path: str, *, clipped: float = 0.0, records: int = 6, diagnosed: bool = False
) -> Path:
    """Write a run with given records, whose loss does not change."""
    run = RunFolder(Path(path))
    run.create(overwrite=True)
    run.write_config(TrainConfig(steps=10 * records or 1, optimizer="sgd"), {"baselines": {}})
    losses = {"train_loss": 1.0, "val_loss": 1.0, "grad_norm": 2.0, "clipped": clipped}
    for number in range(1, records + 1):
        run.records.append({"step": 10 * number, "seconds": 1.0} | losses)
        if diagnosed:
            run.gradients.append({"step": 10 * number, "update_ratio": {"kernel": 1e-3}})
    return run.path


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """Change to an empty working folder, on a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_findings_are_printed(capsys):
    write_run("clipped", clipped=1.0)
    assert main(["advise", "--run", "clipped"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "advice: 1 finding"
    assert lines[2] == "clip-every-step, confidence medium"
    # not wrapped, since the output is no terminal
    assert any(line.startswith("  remedy     --clip 4, twice the usual norm") for line in lines)
    assert lines[-1] == NOT_CHECKED


def test_newest_run_is_default(capsys):
    write_run("runs/new", diagnosed=True)
    old = write_run("runs/old", clipped=1.0)
    os.utime(old / "config.json", (0, 0))
    assert main(["advise"]) == 0
    assert capsys.readouterr().out == "advice: nothing found in the records\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "there is no run in runs/: pass the folder of a run with --run DIR"),
        (["--run", "nowhere"], "nowhere contains no run: there is no config.json"),
        (["--run", "begun"], "begun/metrics.jsonl has no records: the run ended before its first"),
        (["--run", "torn"], "torn/config.json is damaged (its SHA-256 does not match)"),
        (["--run", ""], "--run is empty: pass a value"),
    ],
)
def test_folder_without_records_is_error(arguments, message, capsys):
    write_run("begun", records=0)
    torn = write_run("torn") / "config.json"
    torn.write_text(json.dumps({"config": asdict(TrainConfig()), "sha256": ""}))
    assert main(["advise", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1
