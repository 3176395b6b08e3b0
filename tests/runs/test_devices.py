"""Number of devices of a run; it changes rounding only."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from reproducible import reproducible

from lstm_optax import BatchSharding, Checkpoints, TrainConfig, train_language_model
from lstm_optax.runs import Observer, OptionError
from lstm_optax.runs import devices as devices_module
from lstm_optax.runs.devices import describe_devices, find_devices, make_sharding
from lstm_optax.runs.run_folder import RunFolder

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that simulates a machine: its cores, its devices, the native library."""

    def arrange(cores: int, count: int, platform: str = "cpu", native: bool = False) -> None:
        reason = None if native else "no library"
        monkeypatch.setattr("lstm_optax.lstm.native.library.missing", lambda: reason)
        there = [SimpleNamespace(platform=platform, id=i, process_index=0) for i in range(count)]
        monkeypatch.setattr(devices_module, "core_count", lambda: cores)
        monkeypatch.setattr(jax, "devices", lambda: there)

    return arrange


@pytest.mark.parametrize(
    "batch, cores, count, platform, expected",
    [
        (32, 2, 8, "cpu", 2),
        (32, 16, 16, "cpu", 4),  # eight rows each
        (512, 16, 16, "cpu", 16),
        (30, 4, 4, "cpu", 3),
        (37, 4, 4, "cpu", 1),
        (8, 2, 2, "cpu", 1),
        (32, 4, 1, "cpu", 1),  # JAX was initialised before, with one device
        (64, 2, 8, "gpu", 8),
        (64, 2, 3, "gpu", 2),
    ],
)
def test_default_device_count(machine, batch, cores, count, platform, expected):
    machine(cores, count, platform)
    found = find_devices(batch)
    assert [device.id for device in found] == list(range(expected))
    assert (make_sharding(found) is None) if expected == 1 else len(found) == expected


@pytest.mark.parametrize("platform, expected", [("cpu", 1), ("gpu", 4)])
def test_native_backend_needs_one_device(machine, platform, expected):
    machine(4, 4, platform, native=True)
    assert len(find_devices(64)) == expected
    assert len(find_devices(64, 2)) == 2


def test_explicit_device_count(machine):
    machine(2, 4)
    found = find_devices(32, 4)
    assert len(found) == 4 and describe_devices(found, 32) == "4 × cpu, each with 8 of 32 rows"
    with pytest.raises(
        OptionError,
        match=r"--devices is 8, but JAX has 4 here \(cpu\): .*, or start with JAX_NUM_CPU_D",
    ):
        find_devices(32, 8)
    machine(2, 2, "gpu")
    with pytest.raises(OptionError, match=r"has 2 here \(gpu\): use fewer .* by rounding only\)$"):
        find_devices(32, 4)


@pytest.mark.parametrize(
    "variables, up, expected",
    [
        ({}, False, 3),
        ({}, True, 1),  # JAX is already initialised
        pytest.param({"JAX_NUM_CPU_DEVICES": "4"}, False, 4, marks=pytest.mark.slow),
        pytest.param(
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"},
            False,
            5,
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_prepare_devices_respects_user_settings(variables, up, expected):
    code = (
        "import jax\n"
        "from lstm_optax.runs.devices import prepare_devices\n"
        f"jax.devices() if {up} else None\n"
        "prepare_devices(32, 3)\n"
        "print(len(jax.devices('cpu')))"
    )
    names = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    environment |= {"JAX_PLATFORMS": "cpu"} | variables
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == (f"{expected}\n", 0), done.stderr


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """Varying windows, resets inside them, every kind of randomness, and a guard."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text(TEXT)
    rates = dict(dropout=0.2, locked_dropout=True, embedding_dropout=0.1, weight_dropout=0.3)
    model = dict(hidden=8, embedding=4, vary_window=True, guard=2, ar=1.0, tar=1.0)
    course = dict(schedule="constant", steps=20, eval_every=5)
    return TrainConfig(text=text, batch=2, window=8, devices=2, **rates, **model, **course)


@pytest.fixture(scope="module")
def split() -> list:
    """Shapes of the batches that the run has sharded."""
    return []


@pytest.fixture(scope="module")
def unbroken(config, split, tmp_path_factory) -> RunFolder:
    run, batches = RunFolder(tmp_path_factory.mktemp("runs") / "unbroken"), BatchSharding.batches

    def watched(self, stacked):
        split.append(stacked.inputs.shape)
        return batches(self, stacked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchSharding, "batches", watched)
        train_language_model(config, run.path)
    return run


def stop_after(step: int, warnings: list | None = None) -> Observer:
    now = [0]
    return Observer(
        warn=(warnings if warnings is not None else []).append,
        progress=lambda step, loss: now.__setitem__(0, step),
        should_stop=lambda: now[0] >= step,
    )


def records(run: RunFolder) -> list[dict]:
    return reproducible(run.records.read())


def arrays(run: RunFolder):
    checkpoints = Checkpoints(run.checkpoints)
    (*_, step) = checkpoints.steps()
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(checkpoints.folder / str(step)))


def assert_close(run: RunFolder, other: RunFolder) -> None:
    for a, b in zip(records(run), records(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    chex.assert_trees_all_close(arrays(run), arrays(other), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_devices_equal_one(config, unbroken, split, tmp_path):
    one = RunFolder(tmp_path / "one")
    train_language_model(replace(config, devices=1), one.path)
    assert_close(unbroken, one)
    stored, facts = unbroken.read_config()
    assert stored == config and facts["device"] == "2 × cpu, each with 1 of 2 rows"
    validation, *dispatches = split
    assert validation[1:] == (8, 2) and dispatches == [(8, 18, 2)] * 6


@pytest.mark.slow
def test_resume_keeps_devices_and_is_exact(config, unbroken, tmp_path):
    run, warnings = RunFolder(tmp_path / "run"), []
    train_language_model(config, run.path, observer=stop_after(8))
    again = stop_after(99, warnings)
    train_language_model(replace(config, devices=0), run.path, resume=True, observer=again)
    assert warnings == [] and run.read_config()[0].devices == 2
    assert records(run) == records(unbroken)
    chex.assert_trees_all_equal(arrays(run), arrays(unbroken))


@pytest.mark.soak
def test_resume_warns_of_other_devices(config, unbroken, tmp_path):
    run, warnings = RunFolder(tmp_path / "run"), []
    train_language_model(config, run.path, observer=stop_after(8))
    again = stop_after(99, warnings)
    train_language_model(replace(config, devices=1), run.path, resume=True, observer=again)
    assert warnings == [
        "the run used 2 devices and continues with 1: the results differ by rounding only"
    ]
    assert_close(run, unbroken)
    too_many = replace(config, batch=18, devices=9)
    with pytest.raises(OptionError, match="--devices is 9, but JAX has 8 here"):
        train_language_model(too_many, tmp_path / "none")
    assert not (tmp_path / "none").exists()
