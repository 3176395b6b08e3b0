"""PyTorch's train step and PyTorch's update, each in its fastest form."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_optax.bench.programs import Program
from lstm_optax.bench.torch_layer import load_torch, synchronize
from lstm_optax.data import Batch


def torch_train(
    weights: dict[str, np.ndarray], batches: Sequence[Batch], rate: float, clip: float
) -> Program:
    """Return the program of embedding, `nn.LSTM`, output layer, clip and fused Adam.

    One of the two biases of the LSTM is frozen: the models of the other libraries have one.
    """
    torch, device = load_torch()
    embedding, lstm, output = (module.to(device) for module in _make_modules(torch, weights))
    params = [embedding.weight, *list(lstm.parameters())[:3], output.weight, output.bias]
    optimizer = torch.optim.Adam(params, lr=rate, fused=True)
    state: list[Any] = [None]

    def step(batch: Batch):
        inputs, targets = (torch.from_numpy(a).long().to(device) for a in batch[:2])
        optimizer.zero_grad()
        hidden, carry = lstm(embedding(inputs), state[0])
        state[0] = tuple(s.detach() for s in carry)
        loss = torch.nn.functional.cross_entropy(output(hidden).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, clip)
        optimizer.step()
        return loss.detach()

    def call():
        for batch in batches:
            loss = step(batch)
        synchronize(torch, device)
        return loss

    def values(loss: Any):
        after = dict(zip(weights, [p.detach().cpu().numpy() for p in params], strict=True))
        arrays = {name: a.T if "kernel" in name else a for name, a in after.items()}
        change = {name: a.astype(np.float64) - weights[name] for name, a in arrays.items()}
        return change | {"loss": loss.cpu().numpy()}

    return Program(call, values, len(batches))


def torch_update(
    params: Sequence[np.ndarray], grads: Sequence[np.ndarray], rule: str, rate: float, clip: float
) -> Program:
    """Return the program of a clip and an update: Adam fused, NAdam with `foreach`."""
    torch, device = load_torch()
    leaves = [torch.from_numpy(p.copy()).to(device).requires_grad_() for p in params]
    for leaf, grad in zip(leaves, grads, strict=True):
        leaf.grad = torch.from_numpy(grad.copy()).to(device)
    if rule == "adam":
        optimizer = torch.optim.Adam(leaves, lr=rate, fused=True)
    else:
        optimizer = torch.optim.NAdam(leaves, lr=rate, foreach=True)

    def call():
        torch.nn.utils.clip_grad_norm_(leaves, clip)
        optimizer.step()
        synchronize(torch, device)

    def values(_: Any):
        after = [leaf.detach().cpu().numpy().astype(np.float64) for leaf in leaves]
        changes = [a - p for a, p in zip(after, params, strict=True)]
        moments = [optimizer.state[leaf]["exp_avg"].cpu().numpy() for leaf in leaves]
        return {str(i): array for i, array in enumerate([*changes, *moments])}

    return Program(call, values)


def _make_modules(torch: Any, weights: dict[str, np.ndarray]) -> tuple[Any, Any, Any]:
    vocabulary, features = weights["embedding"].shape
    hidden = weights["kernel_hh"].shape[0]
    embedding = torch.nn.Embedding(vocabulary, features)
    lstm = torch.nn.LSTM(features, hidden)
    output = torch.nn.Linear(hidden, vocabulary)
    lstm.bias_hh_l0.requires_grad_(False)
    targets = (embedding.weight, *lstm.parameters(), output.weight, output.bias)
    new = [a.T if "kernel" in name else a for name, a in weights.items()]
    new.insert(4, np.zeros_like(weights["bias"]))  # the frozen bias
    with torch.no_grad():
        for target, value in zip(targets, new, strict=True):
            target.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return embedding, lstm, output
