"""A training of a `torch.nn.LSTM` that starts in PyTorch and continues in JAX."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.interop import lstm_from_torch
from lstm_optax.interop.torch_optimizer import optimizer_from_torch
from lstm_optax.presets import torch as presets

BEFORE, AFTER = 50, 100
FEATURES, HIDDEN, LAYERS = 2, 2, 2
TIME, BATCH, BATCHES = 4, 3, 10


@dataclass(frozen=True)
class Move:
    """An optimizer of PyTorch with options; all cases train the same model."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in self.options)})"


def _moves(table: dict[str, list[dict]]) -> list[Move]:
    return [Move(name, tuple(o.items())) for name, options in table.items() for o in options]


RECORDED_MOVES = _moves(
    {
        "SGD": [dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01)],
        "RMSprop": [dict(lr=0.003, momentum=0.9, centered=True, eps=1e-3)],
        "NAdam": [dict(lr=0.01, weight_decay=0.01, decoupled_weight_decay=True)],
        "Adam": [dict(lr=0.01, amsgrad=True, weight_decay=0.01)],
        "AdamW": [dict(lr=0.01, weight_decay=0.1)],
    }
)
MOVES = RECORDED_MOVES + _moves(
    {
        "SGD": [
            dict(lr=0.1),
            dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            dict(lr=0.0005, momentum=0.9, maximize=True),
        ],
        "RMSprop": [
            dict(lr=0.003),
            dict(lr=0.003, centered=True),
            dict(lr=0.001, alpha=0.9, weight_decay=0.01, momentum=0.5, maximize=True),
        ],
        "NAdam": [
            dict(lr=0.01, betas=(0.8, 0.99), eps=1e-6),
            dict(lr=0.001, weight_decay=0.01, momentum_decay=0.1, maximize=True),
        ],
        "Adam": [
            dict(lr=0.01, betas=(0.8, 0.99), weight_decay=0.1, decoupled_weight_decay=True),
            dict(lr=0.001, eps=1e-6, maximize=True),
        ],
        "AdamW": [dict(lr=0.001, amsgrad=True, betas=(0.95, 0.9), maximize=True)],
    }
)


def batches(dtype=np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs [batches, time, batch, features] and targets [batches, time, batch, 1]."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(BATCHES, TIME, BATCH, FEATURES))
    y = np.sin(np.cumsum(x.sum(-1, keepdims=True), axis=1)) + 0.1 * rng.normal(
        size=(TIME, BATCH, 1)
    )
    return x.astype(dtype), y.astype(dtype)


def loss(weights: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean squared error for PyTorch's parameters."""
    outputs, _ = lstm_from_torch(weights, prefix="lstm.")(x)
    bias = jnp.expand_dims(weights["head.bias"], (0, 1))
    return jnp.mean(jnp.square(outputs @ weights["head.weight"].T + bias - y))


def go_on(move: Move, weights, state_dict, steps=AFTER, first=BEFORE, **options) -> dict:
    """Return the weights after `steps` more steps in JAX, in one compiled scan."""
    weights = {name: jnp.asarray(value) for name, value in weights.items()}
    tx, state = optimizer_from_torch(getattr(presets, move.name), state_dict, weights, **options)
    x, y = (jnp.asarray(a) for a in batches(weights["head.bias"].dtype))

    def body(loop, t):
        weights, state = loop
        grads = jax.grad(loss)(weights, x[t % BATCHES], y[t % BATCHES])
        updates, state = tx.update(grads, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    run = jax.jit(lambda loop: jax.lax.scan(body, loop, first + jnp.arange(steps))[0])
    return run((weights, state))[0]


def torch_model(dtype=np.float64):
    """Return an LSTM of two layers and directions with a linear head, in PyTorch."""
    import torch

    torch.set_num_threads(1)  # more threads would compete with the test workers
    torch.manual_seed(3)
    model = torch.nn.ModuleDict(
        {
            "lstm": torch.nn.LSTM(FEATURES, HIDDEN, num_layers=LAYERS, bidirectional=True),
            "head": torch.nn.Linear(2 * HIDDEN, 1),
        }
    )
    return model.to(torch.float64 if dtype == np.float64 else torch.float32)


def torch_steps(model, optimizer, first: int, steps: int, scheduler=None) -> None:
    """Train in PyTorch, from the batch of the step `first`."""
    import torch

    x, y = (torch.tensor(a) for a in batches(model["head"].bias.detach().numpy().dtype))
    for t in range(first, first + steps):
        optimizer.zero_grad()
        outputs, _ = model["lstm"](x[t % BATCHES])
        torch.mean((model["head"](outputs) - y[t % BATCHES]) ** 2).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def torch_optimizer(move: Move, params):
    """Return the optimizer of PyTorch for these parameters."""
    import torch

    return getattr(torch.optim, move.name)(params, **dict(move.options))


def torch_weights(model) -> dict[str, np.ndarray]:
    """Return a copy of the weights by name."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def distance(mine: dict, theirs: dict, start: dict) -> float:
    """Return the largest |θ − θ'|, relative to the largest change of an entry of that leaf."""
    errors = []
    for name, value in theirs.items():
        moved = np.abs(np.asarray(value) - np.asarray(start[name])).max()
        errors.append(np.abs(np.asarray(mine[name]) - np.asarray(value)).max() / moved)
    return float(max(errors))
