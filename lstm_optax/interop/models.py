"""The weights of a whole model by the names of the same model in PyTorch, and back."""

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

_NAMES = {  # PyTorch's name of a parameter, ours, and whether the two are transposed
    nnx.Embed: (("weight", "embedding", False),),
    nnx.Linear: (("weight", "kernel", True), ("bias", "bias", False)),
}


def module_to_torch(model: nnx.Module) -> dict[str, Array]:
    """Return the weights of a model by the names of a PyTorch module with the same attributes.

        LSTM: as `lstm_params_to_torch`;  Embed: weight = embedding;  Linear: weight = kernelᵀ, bias

    A `LanguageModel` has `embedding.weight`, `lstm.weight_ih_l0`, …, `output.weight` and
    `output.bias`. A PyTorch module whose `Embedding`, `LSTM` and `Linear` have these names takes
    them by `load_state_dict`.

    Args:
      model: a module made of `LSTM`, `nnx.Embed` and `nnx.Linear`, in modules, lists and
        dictionaries of any depth.

    Raises:
      ValueError: a parameter belongs to none of these.

    Reference: `torch.nn.Module.state_dict`, PyTorch 2.13.
    """
    weights: dict[str, Array] = {}
    for prefix, module in _parts(model):
        if isinstance(module, LSTM):
            weights |= lstm_to_torch(module, prefix=prefix)
            continue
        for name, own, transposed in _names(module):
            value = getattr(module, own)[...]
            weights[prefix + name] = value.T if transposed else value
    return weights


def module_from_torch(model: Model, weights: Mapping[str, Any]) -> Model:
    """Return a model like the given one with the weights of a PyTorch module.

    The inverse of `module_to_torch`; the two biases of PyTorch's LSTM are added. The given model
    stays as it is, and the parameters have the dtype of the weights.

    Args:
      model: as `module_to_torch` takes it.
      weights: arrays or tensors by PyTorch's names, of this model and no other.

    Raises:
      ValueError: a name is missing or is none of the model's, or a shape does not fit.
    """
    model = nnx.clone(model)
    left = {name: jnp.asarray(as_numpy(value)) for name, value in weights.items()}
    for prefix, module in _parts(model):
        if isinstance(module, LSTM):
            _fill_lstm(module, prefix, left)
            continue
        for name, own, transposed in _names(module):
            shape = getattr(module, own).shape
            check_shapes(left, {prefix + name: shape[::-1] if transposed else shape})
            value = left.pop(prefix + name)
            setattr(module, own, nnx.Param(value.T if transposed else value))
    if left:
        raise ValueError(f"the model has no {', '.join(map(repr, sorted(left)))}")
    return model


def _fill_lstm(lstm: LSTM, prefix: str, left: dict[str, Array]) -> None:
    """Take the weights of a layer, whose sizes stay what they are."""
    names = [name for name in left if name.startswith(prefix)]
    theirs = lstm_params_from_torch({name: left.pop(name) for name in names}, prefix=prefix)
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


def _parts(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """The modules that have a counterpart in PyTorch, each with the beginning of its names."""
    parts = {
        path: module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (LSTM, *_NAMES))
    }
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if not any(path[: len(at)] == at for at in parts):
            raise ValueError(
                f"the parameter {'/'.join(map(str, path))!r} belongs to no LSTM, nnx.Embed or "
                "nnx.Linear, which alone have a counterpart in PyTorch here"
            )
    for path, module in parts.items():
        yield "".join(f"{name}." for name in path), module


def _names(module: nnx.Module) -> list[tuple[str, str, bool]]:
    names = next(names for kind, names in _NAMES.items() if isinstance(module, kind))
    return [name for name in names if getattr(module, name[1]) is not None]
