"""Weights of `torch.nn.LSTM` to parameters, and back; PyTorch is not imported."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from lstm_optax.interop.arrays import check_floats, check_shapes, check_stack, get
from lstm_optax.interop.files import as_numpy
from lstm_optax.interop.torch_names import has_reverse, plain_names
from lstm_optax.lstm.cell import LSTMParams

_TORCH_NAME = re.compile(r"(weight|bias)_(ih|hh)_l(0|[1-9]\d*)(_reverse)?")


def lstm_params_from_torch(
    weights: Mapping[str, Any], *, prefix: str = ""
) -> tuple[LSTMParams, ...]:
    """Return one LSTMParams for each layer and direction of a `torch.nn.LSTM` or `LSTMCell`.

        kernel_ih = weight_ihᵀ,  kernel_hh = weight_hhᵀ,  bias = bias_ih + bias_hh, or 0 if absent

    The order is that of the carry: layer 0 forward, layer 0 backward, layer 1 forward, … A pure
    function; it works under `jit` and `grad`. A loss that calls it trains the two biases
    separately, as PyTorch does.

    Args:
      weights: arrays or tensors by PyTorch's names, `weight_ih_l0` [4·hidden, features] and so on,
        with the same gate order i, f, g, o. Names without `_l0` belong to an `LSTMCell`. Weights
        that `weight_norm`, `prune` or WeightDrop store in parts are computed from the parts.
      prefix: prefix of the LSTM's names, such as "lstm."; names without it are ignored.

    Raises:
      ValueError: a missing or unknown name, a wrong shape, an LSTM with projections (`proj_size`),
        or a weight that another wrapper stores in parts.

    Reference: `torch.nn.LSTM`, PyTorch 2.13.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights is a {type(weights).__name__}; expected a dictionary of arrays")
    theirs = {name: weights[name] for name in weights if str(name).startswith(prefix)}
    for name, value in theirs.items():
        if not str(name).endswith("_mask"):  # a mask of `prune` may be bool
            check_floats(str(name), value)
    found = {str(name)[len(prefix) :]: jnp.asarray(as_numpy(w)) for name, w in theirs.items()}
    found = plain_names(found, prefix)
    layers, suffixes, has_bias = _torch_layout(found, prefix)
    hidden = _hidden_units(get(found, "weight_hh_l0", prefix), prefix)
    features = get(found, "weight_ih_l0", prefix).shape[-1:]
    params = []
    for layer in range(layers):
        for suffix in suffixes:
            at = f"l{layer}{suffix}"
            shapes = {f"weight_ih_{at}": (4 * hidden, *features)}
            shapes[f"weight_hh_{at}"] = (4 * hidden, hidden)
            if has_bias:
                shapes |= {f"bias_ih_{at}": (4 * hidden,), f"bias_hh_{at}": (4 * hidden,)}
            check_shapes(found, shapes, prefix)
            ih, hh, *biases = (found[name] for name in shapes)
            bias = biases[0] + biases[1] if biases else jnp.zeros(4 * hidden, ih.dtype)
            params.append(LSTMParams(ih.T, hh.T, bias))
        features = (hidden * len(suffixes),)
    return tuple(params)


def lstm_params_to_torch(
    params: Sequence[LSTMParams], *, bidirectional: bool = False, prefix: str = ""
) -> dict[str, Array]:
    """Return the parameters with the names of a `torch.nn.LSTM`, in PyTorch's order.

        weight_ih = kernel_ihᵀ,  weight_hh = kernel_hhᵀ,  bias_ih = bias,  bias_hh = 0

    The inverse of `lstm_params_from_torch`, exact except for the biases: only their sum is known,
    so the second is zero. For an LSTM with `bias=False`, leave the biases out. PyTorch loads
    `{name: torch.tensor(numpy.asarray(w)) for name, w in weights.items()}`.

    Args:
      params: one LSTMParams for each layer and direction, in the order of the carry.
      bidirectional: whether the parameters alternate between forward and backward directions.
      prefix: prefix for the names, such as "lstm.".

    Raises:
      ValueError: `params` is not a sequence of LSTMParams, the shapes do not form a stack, or the
        second of two directions is missing.
    """
    check_stack(params)
    suffixes = ("", "_reverse") if bidirectional else ("",)
    if not params or len(params) % len(suffixes):
        raise ValueError(f"got {len(params)} LSTMParams; expected {len(suffixes)} for each layer")
    weights, hidden = {}, params[0].kernel_hh.shape[0]
    for i, cell in enumerate(params):
        layer, direction = divmod(i, len(suffixes))
        at = f"l{layer}{suffixes[direction]}"
        features = hidden * len(suffixes) if layer else params[0].kernel_ih.shape[0]
        ih, hh, bias = (jnp.asarray(array) for array in cell)
        if (ih.shape, hh.shape) != ((features, 4 * hidden), (hidden, 4 * hidden)):
            raise ValueError(
                f"the kernels of params[{i}] have shapes {ih.shape} and {hh.shape}; expected "
                f"{features} features and {hidden} hidden units, for a stack of PyTorch"
            )
        weights |= {f"{prefix}weight_ih_{at}": ih.T, f"{prefix}weight_hh_{at}": hh.T}
        weights |= {f"{prefix}bias_ih_{at}": bias, f"{prefix}bias_hh_{at}": jnp.zeros_like(bias)}
    return weights


def torch_is_bidirectional(weights: Mapping[str, Any], *, prefix: str = "") -> bool:
    """Return whether the weights of a `torch.nn.LSTM` have a backward direction."""
    return has_reverse(weights, prefix)


def _torch_layout(found: Mapping[str, Any], prefix: str) -> tuple[int, tuple[str, ...], bool]:
    """Return the number of layers, the suffixes of the directions, and whether there are biases."""
    matches = []
    for name in found:
        if name.startswith("weight_hr_l"):
            raise ValueError(
                f"{prefix}{name} is a projection (proj_size > 0), which this LSTM does not have"
            )
        match = _TORCH_NAME.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{prefix + name!r} is no name of a torch.nn.LSTM; expected names such as "
                f"'weight_ih_l0' after the prefix {prefix!r}: pass only the LSTM's weights, or "
                f"its prefix"
            )
        matches.append(match)
    layers = 1 + max((int(match[3]) for match in matches), default=0)
    backward = any(match[4] for match in matches)
    has_bias = any(match[1] == "bias" for match in matches)
    return layers, ("", "_reverse") if backward else ("",), has_bias


def _hidden_units(weight_hh: Any, prefix: str) -> int:
    shape = weight_hh.shape
    if len(shape) != 2 or shape[0] != 4 * shape[1]:
        raise ValueError(f"{prefix}weight_hh_l0 has shape {shape}; expected (4 hidden, hidden)")
    return shape[1]
