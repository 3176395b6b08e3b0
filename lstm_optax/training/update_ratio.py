"""The size of an update against the size of the weights, for each matrix of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.transforms import global_norm

SUFFIX = ".update_ratio"  # of the names in a record


def update_ratios(params: Any, updates: Any) -> jax.Array:
    """Return ‖Δθ‖ / ‖θ‖ for each matrix θ of the parameters, in the order of the leaves.

    Vectors are left out: a bias may start at 0.
    """
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(updates), strict=True)
    found = [
        (global_norm(update) / global_norm(weights)).astype(jnp.float32)
        for weights, update in pairs
        if weights.ndim > 1
    ]
    return jnp.stack(found) if found else jnp.zeros([0])


def named_ratios(params: Any, ratios: np.ndarray) -> dict[str, float]:
    """Return the ratios of `update_ratios` by name, such as "output.kernel.update_ratio"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [path for path, leaf in leaves if leaf.ndim > 1]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    pairs = zip(names, ratios.tolist(), strict=True)
    return {f"{name.removesuffix('.value')}{SUFFIX}": ratio for name, ratio in pairs}
