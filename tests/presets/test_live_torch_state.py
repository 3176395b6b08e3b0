"""A training is moved out of PyTorch by files, and its next steps agree with PyTorch's."""

import numpy as np
import pytest
from live import torch_in
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
)

from lstm_optax import read_torch

pytestmark = pytest.mark.slow


def plain(model) -> dict:
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def moved(move: Move, path, dtype):
    """The weights after `AFTER` more steps, here and in PyTorch, and those before."""
    need("torch")
    with torch_in(dtype) as torch:
        model = torch_model(dtype)
        optimizer = torch_optimizer(move, model.parameters())
        torch_steps(model, optimizer, 0, BEFORE)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        torch_steps(model, optimizer, BEFORE, AFTER)
    saved = read_torch(path)
    return go_on(move, saved["model"], saved["optimizer"]), plain(model), saved["model"]


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_the_next_steps_are_pytorch_s(move, tmp_path, x64):
    error = distance(*moved(move, tmp_path / "saved.pt", np.float64))
    print(f"{move}: {error:.1e}")
    assert error < 1e-10


@pytest.mark.parametrize("move", RECORDED_MOVES, ids=str)
def test_the_next_steps_are_pytorch_s_in_single_precision(move, tmp_path):
    error = distance(*moved(move, tmp_path / "saved.pt", np.float32))
    print(f"{move}: {error:.1e} in float32")
    assert error < 1e-3
