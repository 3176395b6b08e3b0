"""`advise` on real runs, the measurement of a late clip, and the sizes of updates."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

import lstm_optax as lo
from lstm_optax import TrainConfig, advise, train_language_model
from lstm_optax.runs import OptionError, findings_table
from lstm_optax.runs.advice.facts import optimizer_numbers
from lstm_optax.runs.advice.finding import CONFIDENCES
from lstm_optax.runs.advice.late_clip import measure_late_clip

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)


SIZES = dict(hidden=8, embedding=4, batch=2, window=8, schedule="constant", optimizer="sgd")


def train(folder: Path, **options) -> Path:
    """Train a tiny model in a folder, with SGD, which has no moments that start cold."""
    (text := folder.with_suffix(".txt")).write_text(TEXT)
    train_language_model(TrainConfig(text=text, **SIZES, **options), folder)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """Return a run whose rate is so small that the loss falls by less than 1 %."""
    folder = tmp_path_factory.mktemp("runs") / "healthy"
    return train(folder, learning_rate=1e-3, steps=20, eval_every=4, diagnose=True)


@pytest.fixture(scope="module")
def clipped(tmp_path_factory) -> Path:
    """Return two steps, each with a checkpoint, and a clip far below the norm of the gradient."""
    folder = tmp_path_factory.mktemp("runs") / "clipped"
    return train(folder, learning_rate=1.0, clip=1e-3, steps=2, eval_every=1, diagnose=True)


@pytest.mark.slow
def test_healthy_run_has_no_findings(healthy):
    assert advise(healthy) == []


@pytest.mark.slow
def test_clip_far_too_small_is_found(clipped):
    (finding,) = advise(str(clipped))
    assert finding.rule == "clip-every-step" and finding.numbers["share"] == 1
    lines = (clipped / "metrics.jsonl").read_text().splitlines()
    usual = np.median([json.loads(line)["grad_norm"] for line in lines])
    assert finding.numbers["grad_norm"] == pytest.approx(usual)
    assert f"--clip {2 * usual:.2g}, twice the usual norm" in finding.remedy


def test_update_ratio_is_that_of_last_step(clipped):
    """The row of step 2 has the ratio of the change from checkpoint 1 to checkpoint 2."""
    before, after = (matrices(clipped, step) for step in (1, 2))
    row = json.loads((clipped / "gradients.jsonl").read_text().splitlines()[1])
    assert set(row["update_ratio"]) == set(before) and len(before) == 4
    for name, ratio in row["update_ratio"].items():
        change = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert ratio == pytest.approx(change, rel=1e-3)


def matrices(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Return the matrices of a checkpoint by path, in float64."""
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(folder / "checkpoints" / str(step))
    found = {}

    def walk(path, node):
        if isinstance(node, dict):
            for name, child in node.items():
                walk([*path, name], child)
        elif np.ndim(node) > 1:
            found[".".join(path).removesuffix(".value")] = np.asarray(node, np.float64)

    walk([], state["params"])
    return found


@pytest.mark.parametrize("torn", ["", '{"step": 5, "secon'])
def test_run_without_records_is_error(healthy, tmp_path, torn):
    (tmp_path / "config.json").write_bytes((healthy / "config.json").read_bytes())
    (tmp_path / "metrics.jsonl").write_text(torn)
    with pytest.raises(OptionError, match="metrics.jsonl has no records: the run ended before its"):
        advise(tmp_path)


def test_folder_without_run_is_error(tmp_path):
    with pytest.raises(OptionError, match="contains no run: there is no config.json"):
        advise(tmp_path)


def test_record_without_diagnosis_is_enough(healthy, tmp_path):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((healthy / name).read_bytes())
    assert advise(tmp_path) == []


# The measurement of a late clip

EARLY = {
    "clip, adam": lambda rate: optax.chain(lo.clip_by_global_norm(1.0), lo.adam(rate)),
    "clip, momentum": optax.chain(lo.clip_by_global_norm(1.0), lo.momentum_sgd(0.1)),
}
LATE = {
    "adam, clip": lambda rate: optax.chain(lo.adam(rate), optax.clip_by_global_norm(1.0)),
    "adam, clip, rate": optax.chain(
        optax.scale_by_adam(), lo.clip_by_global_norm(0.5), optax.scale(-1e-3)
    ),
}
NONE = {
    "adam": lo.adam,
    "lion": optax.lion,  # its steps do not grow with the gradient either
    "muon": optax.contrib.muon,
    "gate_muon": lo.gate_muon,  # needs an LSTM
}
PLAIN = ("clip, adam", "adam, clip")


def plain_cases(table: dict) -> list:
    """Return the optimizers of a table; those that are not in `PLAIN` are slow."""
    marks = {name: () if name in PLAIN else pytest.mark.slow for name in table}
    return [pytest.param(tx, marks=marks[name], id=name) for name, tx in table.items()]


@pytest.mark.parametrize("optimizer", plain_cases(EARLY))
def test_early_clip_is_silent(healthy, optimizer):
    assert advise(healthy, optimizer) == []


@pytest.mark.parametrize("optimizer", plain_cases(LATE))
def test_late_clip_is_found(healthy, optimizer):
    (finding,) = advise(healthy, optimizer)
    assert (finding.rule, finding.confidence) == ("late-clip", "high")
    assert finding.message.startswith("A clip acts on the steps")
    assert finding.numbers["disturbed"] > 1000


def test_certain_findings_come_first(clipped):
    rules = [finding.rule for finding in advise(clipped, LATE["adam, clip"])]
    assert rules == ["late-clip", "clip-every-step"]


@pytest.mark.parametrize("optimizer", plain_cases(NONE))
def test_missing_clip_is_no_late_clip(optimizer):
    measured = measure_late_clip(optimizer, 1e-3)
    assert measured.spike and not measured.bounded


def test_wrong_optimizer_is_error(healthy):
    with pytest.raises(ValueError, match="expected a transformation, or a function that makes one"):
        advise(healthy, "adam")


# Hyper-parameters, and the text


def test_optimizer_numbers_are_set_or_default():
    set_b2 = TrainConfig(optimizer="nadam", set=("b2=0.99",))
    assert optimizer_numbers(set_b2) == {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
    assert optimizer_numbers(TrainConfig(optimizer="presets.torch.Adam"))["betas.1"] == 0.999
    assert optimizer_numbers(TrainConfig(optimizer="awd_sgd"))["nonmonotone"] == 5
    assert optimizer_numbers(TrainConfig(optimizer="optax.no_such")) == {}


def test_findings_fit_eighty_columns(clipped):
    findings = [replace(f, confidence=c) for f in advise(clipped) for c in CONFIDENCES]
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(findings_table(findings))
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("advice: 3 findings") and max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for finding in findings:
        assert f"clip-every-step, confidence {finding.confidence}" in text
        for part in (finding.message, finding.threshold, finding.remedy, finding.source):
            assert part in text


def test_no_findings_are_one_line():
    console = Console(file=io.StringIO(), width=80)
    console.print(findings_table([]))
    assert console.file.getvalue() == "advice: nothing found in the records\n"
