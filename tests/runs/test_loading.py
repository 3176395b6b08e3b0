"""Load a trained model without its optimizer, here and in another process."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lstm_optax as lo
from lstm_optax.runs.build import make_model, make_optimizer, make_schedule, make_state
from lstm_optax.runs.run_folder import RunFolder

TEXT = "the cat sat on the mat. " * 40
PAGE = Path(__file__).parents[2] / "docs" / "use_what_you_trained.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """Return a run of ten steps with an averaging optimizer and checkpoints after 5 and 10."""
    folder = tmp_path_factory.mktemp("loading")
    (folder / "text.txt").write_text(TEXT)
    config = lo.TrainConfig(
        text=folder / "text.txt",
        optimizer="optax.contrib.schedule_free_adamw",
        hidden=6,
        embedding=4,
        dropout=0.5,
        batch=2,
        window=8,
        steps=10,
        eval_every=5,
    )
    lo.train_language_model(config, folder / "run")
    return RunFolder(folder / "run")


def restored(run: RunFolder, prefer=None) -> tuple[int, lo.TrainState]:
    """Return the step and state of a checkpoint, restored with the run's optimizer."""
    config, facts = run.read_config()
    model = make_model(config, len(facts["text"]["vocabulary"]))
    optimizer = make_optimizer(config, make_schedule(config))
    like = make_state(model, optimizer, rows=config.batch, seed=config.seed)
    return lo.Checkpoints(run.checkpoints).restore(like, prefer=prefer)[:2]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["best", "latest"])
def test_load_run_returns_average(run, which):
    loaded = lo.load_run(run.path, checkpoint=which)
    best = lo.best_record(run.records.read())
    assert best is not None
    step, state = restored(run, best["step"] if which == "best" else None)
    expected = lo.eval_params(state.opt_state, state.params)
    assert loaded.step == step and loaded.damaged == []
    chex.assert_trees_all_equal(loaded.params, expected)
    assert np.any(loaded.params["output"]["bias"][...] != state.params["output"]["bias"][...])
    assert "".join(loaded.vocabulary.characters) == "".join(sorted(set(TEXT)))
    assert loaded.config == run.read_config()[0]
    model = make_model(loaded.config, len(loaded.vocabulary))
    nnx.update(model, expected)
    tokens = jnp.asarray(loaded.vocabulary.encode("the cat"))[:, None]
    logits, _ = loaded.model(tokens)  # without dropout
    chex.assert_trees_all_equal(logits, model(tokens, deterministic=True)[0])


@pytest.mark.slow
def test_load_run_skips_damaged_checkpoint(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "10.sha256").write_text("0  10/x\n")
    loaded = lo.load_run(tmp_path / "run", checkpoint="latest")
    assert (loaded.step, loaded.damaged) == (5, [10])


@pytest.mark.slow
def test_docs_script_predicts(run, tmp_path):
    """The script in the docs needs only the run folder."""
    (script,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        if "sys.argv" in block
    )
    shutil.copytree(run.path, tmp_path / "moved")
    command = [sys.executable, "-c", script, "moved", "the c"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    loaded = lo.load_run(run.path)
    logits, _ = loaded.model(jnp.asarray(loaded.vocabulary.encode("the c"))[:, None])
    likeliest = jnp.argsort(-logits[-1, 0])[:3]
    expected = [
        f"{loaded.vocabulary.decode(np.asarray(token)[None])!r} {p:.4f}"
        for token, p in zip(likeliest, jax.nn.softmax(logits[-1, 0])[likeliest], strict=True)
    ]
    assert done.stdout.splitlines() == expected


def changed_config(folder: Path, **changes) -> None:
    """Write a changed configuration with a valid digest."""
    run = RunFolder(folder)
    config, facts = run.read_config()
    facts = {name: value for name, value in facts.items() if name not in changes.pop("drop", ())}
    run.write_config(lo.TrainConfig(**(vars(config) | changes)), facts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda folder: shutil.rmtree(folder), lo.runs.OptionError, "contains no run"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            lo.runs.OptionError,
            "is damaged",
        ),
        (lambda folder: shutil.rmtree(folder / "checkpoints"), lo.CheckpointError, "is no checkp"),
        (
            lambda folder: [p.unlink() for p in (folder / "checkpoints").rglob("_METADATA")],
            lo.CheckpointError,
            r"every checkpoint in .* is damaged \(steps 5, 10\)",
        ),
        (
            lambda folder: changed_config(folder, hidden=7),
            lo.runs.OptionError,
            r"version with other parameters: 'lstm/layers/0/forward/\w+/value' is float32\(",
        ),
        (
            lambda folder: changed_config(folder, layers=2),
            lo.runs.OptionError,
            "has no parameter 'lstm",
        ),
        (
            lambda folder: changed_config(folder, drop=["text"]),
            lo.runs.OptionError,
            "no vocabulary",
        ),
    ],
)
def test_load_run_rejects_damaged_folder(run, tmp_path, damage, error, message):
    shutil.copytree(run.path, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(error, match=message):
        lo.load_run(tmp_path / "run")


@pytest.mark.slow
def test_load_run_rejects_unknown_checkpoint(run):
    with pytest.raises(ValueError, match=r"checkpoint is 'newest', but must be one of \('best'"):
        lo.load_run(run.path, checkpoint="newest")


@pytest.mark.slow
def test_load_run_rejects_newer_options(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["config"]["attention"] = 3
    from lstm_optax.runs.run_folder import _digest

    path.write_text(json.dumps(content | {"sha256": _digest(content)}))
    with pytest.raises(lo.runs.OptionError, match=r"does not know the options \['attention'\]"):
        lo.load_run(tmp_path / "run")
