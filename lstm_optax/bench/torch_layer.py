"""PyTorch's LSTM for a layer row, on all cores or on the GPU that JAX uses too."""

from importlib import import_module
from typing import Any

import jax
import numpy as np

from lstm_optax.bench.layer_data import (
    RATE,
    LayerData,
    Leaves,
    named,
    named_outputs,
)
from lstm_optax.bench.programs import Program, Unavailable
from lstm_optax.lstm import LSTMParams
from lstm_optax.records import core_count


def load_torch() -> tuple[Any, Any]:
    """Return PyTorch, set to one thread per core, and the device of the kind that JAX uses."""
    torch: Any = import_module("torch")
    torch.set_num_threads(core_count())
    if jax.default_backend() == "cpu":
        return torch, torch.device("cpu")
    if not torch.cuda.is_available():
        raise Unavailable(f"PyTorch finds no GPU, but JAX runs on {jax.default_backend()}")
    return torch, torch.device("cuda")


def synchronize(torch: Any, device: Any) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def torch_layer(data: LayerData, measure: str, steps: int) -> Program:
    """Return the program of `nn.LSTM`; the measure "steps" is a loop, as nothing is compiled."""
    torch, device = load_torch()
    layer = _Layer(torch, device, data)

    def forward():
        with torch.no_grad():
            result = layer.forward()
        synchronize(torch, device)
        return result

    def step():
        result = layer.value_and_grad()
        synchronize(torch, device)
        return result

    def several():
        losses = []
        for _ in range(steps):
            loss, grads = layer.value_and_grad()
            layer.move(grads)
            losses.append(loss)
        synchronize(torch, device)
        return losses

    if measure == "forward":
        return Program(forward, lambda r: named_outputs(*_to_numpy(r)))
    if measure == "step":
        return Program(step, lambda r: layer.named(r[1]) | {"losses": _to_numpy(r[0])})
    before = layer.named(layer.leaves)

    def changes(losses: Any):
        change = {name: a - before[name] for name, a in layer.named(layer.leaves).items()}
        return change | {"losses": np.stack(_to_numpy(losses))}

    return Program(several, changes, steps)


class _Layer:
    """A stack of one-layer `nn.LSTM` modules, since the layers of a row may differ in size."""

    def __init__(self, torch: Any, device: Any, data: LayerData):
        self.torch, self.resets = torch, data.resets
        self.modules, self.leaves = [], []
        for params in data.leaves.weights:
            features, hidden = params.kernel_ih.shape[0], params.kernel_hh.shape[0]
            module = torch.nn.LSTM(features, hidden).to(device)
            new = params.kernel_ih.T, params.kernel_hh.T, params.bias, np.zeros_like(params.bias)
            with torch.no_grad():
                for weight, value in zip(module.parameters(), new, strict=True):
                    weight.copy_(torch.from_numpy(np.ascontiguousarray(value)))
            self.modules.append(module)
            self.leaves += module.parameters()

        def to_device(array):
            return torch.from_numpy(np.array(array)).to(device)

        self.x = to_device(data.leaves.x)
        self.states = [tuple(map(to_device, state)) for state in data.leaves.states]
        self.leaves += [self.x.requires_grad_()]
        self.leaves += [s.requires_grad_() for state in self.states for s in state]
        self.output_weights = to_device(data.output_weights)
        self.state_weights = [tuple(map(to_device, state)) for state in data.state_weights]
        if self.resets is not None:
            self.resets = to_device(data.resets).unsqueeze(-1)

    def forward(self):
        """Return the outputs and the last states."""
        x, last = self.x, []
        for module, state in zip(self.modules, self.states, strict=True):
            x, state = self._run_layer(module, x, tuple(s.unsqueeze(0) for s in state))
            last.append(tuple(s.squeeze(0) for s in state))
        return x, last

    def _run_layer(self, module: Any, x: Any, state: Any):
        """Run one layer; with resets step by step, as is usual for recurrent policies."""
        if self.resets is None:
            return module(x, state)
        outputs = []
        for x_t, keep in zip(x.unsqueeze(1), ~self.resets, strict=True):
            out, state = module(x_t, tuple(s * keep for s in state))
            outputs.append(out)
        return self.torch.cat(outputs), state

    def value_and_grad(self):
        """Return the loss, and its gradient with respect to every leaf."""
        outputs, states = self.forward()
        loss = (outputs * self.output_weights).sum()
        for state, weights in zip(states, self.state_weights, strict=True):
            loss = loss + sum((s * w).sum() for s, w in zip(state, weights, strict=True))
        return loss.detach(), self.torch.autograd.grad(loss, self.leaves)

    def move(self, grads: Any) -> None:
        """Take a step against the gradient, without the second bias of each layer."""
        second_biases = {4 * i + 3 for i in range(len(self.modules))}
        chosen = [i for i in range(len(self.leaves)) if i not in second_biases]
        with self.torch.no_grad():
            leaves = [self.leaves[i] for i in chosen]
            self.torch._foreach_add_(leaves, [grads[i] for i in chosen], alpha=-RATE)

    def named(self, leaves: Any) -> dict[str, np.ndarray]:
        """Return the leaves, or their gradient, in this library's layout."""
        arrays = _to_numpy(list(leaves))
        count = len(self.modules)
        weights = tuple(
            LSTMParams(arrays[4 * i].T, arrays[4 * i + 1].T, arrays[4 * i + 2])
            for i in range(count)
        )
        states = arrays[4 * count + 1 :]
        pairs = tuple(zip(states[::2], states[1::2], strict=True))
        return named(Leaves(weights, arrays[4 * count], pairs))


def _to_numpy(tensors: Any) -> Any:
    """Return a tensor, or nested lists and tuples of tensors, as float64 NumPy copies."""
    if isinstance(tensors, list | tuple):
        return [_to_numpy(tensor) for tensor in tensors]
    return tensors.detach().cpu().numpy().astype(np.float64)
