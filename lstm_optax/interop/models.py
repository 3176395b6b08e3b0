"""Weights of a whole model with the names of the same model in PyTorch, and back."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from lstm_optax.interop.arrays import check_shapes
from lstm_optax.interop.files import as_numpy
from lstm_optax.interop.layers import lstm_to_torch
from lstm_optax.interop.torch import lstm_params_from_torch
from lstm_optax.lstm.layer import LSTM

Model = TypeVar("Model", bound=nnx.Module)

_NAMES = {  # (PyTorch's name, our name, whether the array is transposed)
    nnx.Embed: (("weight", "embedding", False),),
    nnx.Linear: (("weight", "kernel", True), ("bias", "bias", False)),
}


def module_to_torch(model: nnx.Module) -> dict[str, Array]:
    """Return the weights of a model with the names of a PyTorch module with the same attributes.

        LSTM: as `lstm_params_to_torch`;  Embed: weight = embedding;  Linear: weight = kernelᵀ, bias

    A `LanguageModel` has `embedding.weight`, `lstm.weight_ih_l0`, …, `output.weight` and
    `output.bias`. A PyTorch module whose `Embedding`, `LSTM` and `Linear` have these names loads
    them with `load_state_dict`.

    Args:
      model: a module made of `LSTM`, `nnx.Embed` and `nnx.Linear`, in modules, lists and
        dictionaries of any depth.

    Raises:
      ValueError: a parameter does not belong to such a module.

    Reference: `torch.nn.Module.state_dict`, PyTorch 2.13.
    """
    weights: dict[str, Array] = {}
    for prefix, module in _modules_with_prefix(model):
        if isinstance(module, LSTM):
            weights |= lstm_to_torch(module, prefix=prefix)
            continue
        for name, own, transposed in _names_of(module):
            value = getattr(module, own)[...]
            weights[prefix + name] = value.T if transposed else value
    return weights


def module_from_torch(model: Model, weights: Mapping[str, Any]) -> Model:
    """Return a copy of the model with the weights of a PyTorch module.

    The inverse of `module_to_torch`; the two biases of PyTorch's LSTM are added. The given model is
    not changed, and the parameters have the dtype of the weights.

    Args:
      model: as in `module_to_torch`.
      weights: arrays or tensors by PyTorch's names, exactly those of this model.

    Raises:
      ValueError: a missing or unknown name, or a wrong shape.
    """
    model = nnx.clone(model)
    remaining = {name: jnp.asarray(as_numpy(value)) for name, value in weights.items()}
    for prefix, module in _modules_with_prefix(model):
        if isinstance(module, LSTM):
            _fill_lstm(module, prefix, remaining)
            continue
        for name, own, transposed in _names_of(module):
            shape = getattr(module, own).shape
            check_shapes(remaining, {prefix + name: shape[::-1] if transposed else shape})
            value = remaining.pop(prefix + name)
            setattr(module, own, nnx.Param(value.T if transposed else value))
    if remaining:
        raise ValueError(f"the model has no {', '.join(map(repr, sorted(remaining)))}")
    return model


def _fill_lstm(lstm: LSTM, prefix: str, remaining: dict[str, Array]) -> None:
    """Set the parameters of a layer from its weights, and remove those from `remaining`."""
    names = [name for name in remaining if name.startswith(prefix)]
    theirs = lstm_params_from_torch({name: remaining.pop(name) for name in names}, prefix=prefix)
    ours = lstm.params()
    if [tuple(map(jnp.shape, cell)) for cell in theirs] != [
        tuple(map(jnp.shape, cell)) for cell in ours
    ]:
        raise ValueError(
            f"{prefix or 'the LSTM'} has {len(theirs)} layers and directions, the first of kernel "
            f"{theirs[0].kernel_ih.shape}; expected {len(ours)}, of {ours[0].kernel_ih.shape}"
        )
    for own, new in zip(lstm._weights(), theirs, strict=True):
        for field, value in new._asdict().items():
            setattr(own, field, nnx.Param(value))


def _modules_with_prefix(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """Yield the modules with a counterpart in PyTorch, each with the prefix of its names."""
    parts = {
        path: module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (LSTM, *_NAMES))
    }
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if not any(path[: len(at)] == at for at in parts):
            raise ValueError(
                f"the parameter {'/'.join(map(str, path))!r} belongs to no LSTM, nnx.Embed or "
                "nnx.Linear; only these are converted to PyTorch"
            )
    for path, module in parts.items():
        yield "".join(f"{name}." for name in path), module


def _names_of(module: nnx.Module) -> list[tuple[str, str, bool]]:
    names = next(names for kind, names in _NAMES.items() if isinstance(module, kind))
    return [name for name in names if getattr(module, name[1]) is not None]
