"""A training continued from PyTorch's files takes the same next steps as PyTorch."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
from live import torch_in
from record_torch_state import RECORDED, record_move
from test_live_parity import need
from torch_training import (
    AFTER,
    BEFORE,
    MOVES,
    RECORDED_MOVES,
    Move,
    distance,
    go_on,
    torch_model,
    torch_optimizer,
    torch_steps,
    torch_weights,
)

from lstm_optax.interop import read_torch

pytestmark = pytest.mark.slow


def moved(move: Move, path, dtype):
    """Return the weights after `AFTER` more steps, here and in PyTorch, and those before."""
    need("torch")
    with torch_in(dtype) as torch:
        model = torch_model(dtype)
        optimizer = torch_optimizer(move, model.parameters())
        torch_steps(model, optimizer, 0, BEFORE)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        torch_steps(model, optimizer, BEFORE, AFTER)
    saved = read_torch(path)
    return go_on(move, saved["model"], saved["optimizer"]), torch_weights(model), saved["model"]


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_next_steps_equal_pytorch(move, tmp_path, x64):
    error = distance(*moved(move, tmp_path / "saved.pt", np.float64))
    print(f"{move}: {error:.1e}")
    assert error < 1e-11


@pytest.mark.parametrize("move", RECORDED_MOVES, ids=str)
def test_next_steps_equal_pytorch_float32(move, tmp_path):
    error = distance(*moved(move, tmp_path / "saved.pt", np.float32))
    print(f"{move}: {error:.1e} in float32")
    assert error < 1e-4


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_torch_scheduler_as_schedule(name, x64):
    need("torch")
    move = Move(name, (("lr", 0.02),))
    with torch_in(np.float64) as torch:
        model = torch_model()
        optimizer = torch_optimizer(move, model.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, BEFORE + AFTER)
        torch_steps(model, optimizer, 0, BEFORE, scheduler)
        start, state_dict = torch_weights(model), copy.deepcopy(optimizer.state_dict())
        torch_steps(model, optimizer, BEFORE, AFTER, scheduler)
    step = BEFORE if name == "SGD" else None
    schedule = lambda t: 0.01 * (1 + jnp.cos(jnp.pi * t / (BEFORE + AFTER)))  # noqa: E731
    mine = go_on(move, start, state_dict, step=step, lr=schedule)
    assert distance(mine, torch_weights(model), start) < 1e-11


def test_groups_and_names_of_pytorch(x64):
    """Two groups, without decay of the biases; the state dict has names and tensors."""
    need("torch")
    move = Move("AdamW", (("lr", 0.01),))
    with torch_in(np.float64):
        model = torch_model()
        named = list(model.named_parameters())
        kernels = [(name, p) for name, p in named if "bias" not in name]
        biases = [(name, p) for name, p in named if "bias" in name]
        groups = [{"params": biases, "weight_decay": 0.0}, {"params": kernels, "weight_decay": 0.3}]
        optimizer = torch_optimizer(move, groups)
        torch_steps(model, optimizer, 0, BEFORE)
        start = torch_weights(model)
        mine = go_on(move, start, optimizer.state_dict())
        torch_steps(model, optimizer, BEFORE, AFTER)
    assert distance(mine, torch_weights(model), start) < 1e-11


def test_momentum_set_during_training(x64):
    """PyTorch creates its buffer at the next step, from the undampened gradient."""
    need("torch")
    move = Move("SGD", (("lr", 0.05),))
    with torch_in(np.float64):
        model = torch_model()
        optimizer = torch_optimizer(move, model.parameters())
        torch_steps(model, optimizer, 0, BEFORE)
        optimizer.param_groups[0] |= {"momentum": 0.9, "dampening": 0.5}
        start, state_dict = torch_weights(model), optimizer.state_dict()
        mine = go_on(move, start, state_dict, step=BEFORE)
        torch_steps(model, optimizer, BEFORE, AFTER)
    assert distance(mine, torch_weights(model), start) < 1e-11


def test_recording_equals_pytorch():
    need("torch")
    with np.load(RECORDED) as file:
        for move in RECORDED_MOVES:
            for key, value in record_move(move).items():
                if key.endswith("param_groups"):
                    assert str(file[key]) == str(value)
                else:
                    np.testing.assert_allclose(file[key], value, rtol=1e-8, atol=1e-12)
