"""The names that wrappers of `torch.nn.LSTM` give its weights, made plain."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

_PLAIN = r"(?P<name>(?:weight|bias)_(?:ih|hh)(?:_l\d+(?:_reverse)?)?)"
_PARAMETRIZED = re.compile(rf"parametrizations\.{_PLAIN}\.(?P<part>.+)")
_WRAPPED = re.compile(rf"{_PLAIN}_(?P<part>raw|g|v|u|orig|mask)")
_CELL = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}


def _weight_norm(g: Array, v: Array) -> Array:
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    return v * (g / jnp.sqrt(jnp.sum(jnp.square(v), axis=axes, keepdims=True)))


_MAKE: Mapping[frozenset[str], tuple[Sequence[str], Callable[..., Array]]] = {
    frozenset(parts): (parts, make)
    for parts, make in (
        (("original0", "original1"), _weight_norm),  # torch.nn.utils.parametrizations
        (("g", "v"), _weight_norm),  # torch.nn.utils.weight_norm
        (("raw",), lambda raw: raw),  # WeightDrop of AWD-LSTM and fastai: before the dropout
        (("orig", "mask"), lambda orig, mask: orig * mask),  # torch.nn.utils.prune
    )
}


def plain_names(found: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return weights by the names of `torch.nn.LSTM`, computed where a wrapper keeps parts of them.

        weight_norm: g · v / ‖v‖ from `…_g` and `…_v` or `parametrizations.….original0` and `1`
        WeightDrop: `…_raw`, which goes before the dropped weights;  prune: `…_orig` · `…_mask`
        LSTMCell: `weight_ih` is `weight_ih_l0`

    Args:
      found: arrays by name, without the prefix. `module.` in front, of a wrapper, is left out.
      prefix: for the errors.

    Raises:
      ValueError: parts of another wrapper, such as `spectral_norm`.
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
        if frozenset(theirs) not in _MAKE:
            raise ValueError(
                f"{prefix}{name} is kept in the parts {sorted(theirs)}, of which it cannot be "
                "computed here: before saving, call remove_parametrizations of "
                "torch.nn.utils.parametrize, or the `remove` that belongs to the wrapper"
            )
        order, make = _MAKE[frozenset(theirs)]
        plain[name] = make(*(theirs[part] for part in order))
    if plain and plain.keys() <= _CELL:
        plain = {f"{name}_l0": value for name, value in plain.items()}
    return plain


def has_reverse(names: Mapping[str, Any], prefix: str) -> bool:
    """Return whether there is a backward direction among the names with this prefix."""
    return any("_reverse" in name[len(prefix) :] for name in names if name.startswith(prefix))
