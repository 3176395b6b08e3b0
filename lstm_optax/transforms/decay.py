"""Optax's weight decay with the argument checks and dtype rules of this library."""

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
    """Add the decayed parameters to the updates, as `optax.add_decayed_weights` does.

        u ← u + λ θ

    Args:
      weight_decay: λ ≥ 0.
      mask: which leaves decay: a tree of bools that is a prefix of the parameters' tree, or a
        function of the parameters that returns one; by default all leaves decay.
      mask_name: the caller's name for `mask`, used in errors.

    Raises:
      ValueError: λ is out of range, or the mask has a leaf that is not a bool; at `init`: the mask
        is not a prefix of the parameters' tree.
    """
    SIZE.check(weight_decay=weight_decay)

    def checked_mask(params: Any) -> Any:
        tree = mask(params) if callable(mask) else mask
        name = f"the result of {mask_name}" if callable(mask) else mask_name
        _check_mask(name, tree)
        try:
            jax.tree.map(lambda decays, part: None, tree, params)
        except ValueError as error:
            raise ValueError(f"{name} is not a prefix of the parameters: {error}") from error
        return tree

    if mask is not None and not callable(mask):
        _check_mask(mask_name, mask)
    return keep_dtype(
        optax.add_decayed_weights(weight_decay, None if mask is None else checked_mask)
    )


def _check_mask(name: str, tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if str(getattr(leaf, "dtype", type(leaf).__name__)) != "bool" or np.shape(leaf):
            raise ValueError(
                f"{name} has the leaf {format_value(leaf)}, but must be a tree of True and False "
                "that is a prefix of the parameters, or a function that returns one"
            )
