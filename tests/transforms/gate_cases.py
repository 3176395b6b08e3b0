"""Trees with an LSTM, divided gate by gate, and the first step of a rule."""

from functools import partial

import jax
import numpy as np
import optax
from rows import H

from lstm_optax import gate_slice
from lstm_optax.gates import GATES


@partial(jax.jit, static_argnums=0)
def first(tx, gradient, params):
    """Return the first updates, and the state after them."""
    return optax.with_extra_args_support(tx).update(gradient, tx.init(params), params)


def split(tree, gates=GATES):
    """Return the same parameters with an array for each gate, split by hand."""
    return {
        "lstm": {
            kind: {gate: np.asarray(leaf)[..., gate_slice(gate, H)] for gate in gates}
            for kind, leaf in tree["lstm"]._asdict().items()
        },
        "head": tree["head"],
    }


def blocks_of(found, *trees):
    """Yield each block of a map with its array in each tree."""
    there = [dict(jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]) for tree in trees]
    for block in found.blocks:
        yield block, *(block.take(leaves[block.path]) for leaves in there)
