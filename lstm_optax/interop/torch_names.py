"""Weights that wrappers of `torch.nn.LSTM` rename or store in parts, under their plain names."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

_PLAIN_NAME = r"(?P<name>(?:weight|bias)_(?:ih|hh)(?:_l\d+(?:_reverse)?)?)"
_PARAMETRIZED = re.compile(rf"parametrizations\.{_PLAIN_NAME}\.(?P<part>.+)")
_WRAPPED = re.compile(rf"{_PLAIN_NAME}_(?P<part>raw|g|v|u|orig|mask)")
_CELL_NAMES = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}


def _weight_norm(g: Array, v: Array) -> Array:
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    return v * (g / jnp.sqrt(jnp.sum(jnp.square(v), axis=axes, keepdims=True)))


_RULES: Mapping[frozenset[str], tuple[Sequence[str], Callable[..., Array]]] = {
    frozenset(parts): (parts, make)
    for parts, make in (
        (("original0", "original1"), _weight_norm),  # torch.nn.utils.parametrizations
        (("g", "v"), _weight_norm),  # torch.nn.utils.weight_norm
        (("raw",), lambda raw: raw),  # WeightDrop of AWD-LSTM and fastai, before dropout
        (("orig", "mask"), lambda orig, mask: orig * mask),  # torch.nn.utils.prune
    )
}


def plain_names(found: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return weights with the names of `torch.nn.LSTM`, computed from the parts of wrappers.

        weight_norm: g · v / ‖v‖ from `…_g` and `…_v` or `parametrizations.….original0` and `1`
        WeightDrop: `…_raw`, the weight before dropout;  prune: `…_orig` · `…_mask`
        LSTMCell: `weight_ih` is `weight_ih_l0`

    Args:
      found: arrays by name, without the prefix. A leading `module.` of a wrapper is removed.
      prefix: prefix of the names in error messages.

    Raises:
      ValueError: parts of an unknown wrapper, such as `spectral_norm`.
    """
    plain: dict[str, Array] = {}
    parts: dict[str, dict[str, Array]] = {}
    for name, value in found.items():
        name = name.removeprefix("module.")
        match = _PARAMETRIZED.fullmatch(name) or _WRAPPED.fullmatch(name)
        if match:
            parts.setdefault(match["name"], {})[match["part"]] = value
        else:
            plain[name] = value
    for name, theirs in parts.items():
        if frozenset(theirs) not in _RULES:
            raise ValueError(
                f"{prefix}{name} is stored in the parts {sorted(theirs)}, and no rule is known to "
                "compute it: before saving, call remove_parametrizations of "
                "torch.nn.utils.parametrize, or the `remove` function of the wrapper"
            )
        names, compute = _RULES[frozenset(theirs)]
        plain[name] = compute(*(theirs[part] for part in names))
    if plain and plain.keys() <= _CELL_NAMES:
        plain = {f"{name}_l0": value for name, value in plain.items()}
    return plain


def has_reverse(names: Mapping[str, Any], prefix: str) -> bool:
    """Return whether any name with this prefix belongs to a backward direction."""
    return any("_reverse" in name[len(prefix) :] for name in names if name.startswith(prefix))
