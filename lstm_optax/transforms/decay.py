"""Weight decay, from Optax, with the checks and the dtypes of this library."""

from typing import Any

import jax
import numpy as np
import optax

from lstm_optax.checks import SIZE, format_value
from lstm_optax.transforms.dtypes import keep_dtype
from lstm_optax.transforms.scalars import Scalar


def decayed_weights(
    weight_decay: Scalar, mask: Any = None, *, mask_name: str = "mask"
) -> optax.GradientTransformationExtraArgs:
    """Add the parameters to the updates: `optax.add_decayed_weights`.

        gives u + λ θ

    Args:
      weight_decay: λ ≥ 0.
      mask: a tree of bools, a prefix of the parameters', or a function that makes one of them:
        which leaves decay; all by default.
      mask_name: the caller's name of `mask`.

    Raises:
      ValueError: λ is out of range, or the mask has a leaf that is no bool; at `init`: the mask is
        no prefix of the parameters.
    """
    SIZE.check(weight_decay=weight_decay)

    def checked(params: Any) -> Any:
        tree = mask(params) if callable(mask) else mask
        name = f"the result of {mask_name}" if callable(mask) else mask_name
        _check_mask(name, tree)
        try:
            jax.tree.map(lambda decays, part: None, tree, params)
        except ValueError as error:
            raise ValueError(f"{name} is no prefix of the parameters: {error}") from error
        return tree

    if mask is not None and not callable(mask):
        _check_mask(mask_name, mask)
    used = None if mask is None else checked
    return keep_dtype(optax.add_decayed_weights(weight_decay, used))


def _check_mask(name: str, tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if str(getattr(leaf, "dtype", type(leaf).__name__)) != "bool" or np.shape(leaf):
            raise ValueError(
                f"{name} has the leaf {format_value(leaf)}, but must be a tree of True and False, "
                "a prefix of the parameters', or a function that returns one"
            )
