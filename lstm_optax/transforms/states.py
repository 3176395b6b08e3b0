"""States found wherever they stand in the state of a chain."""

from typing import Any, TypeVar

import jax

T = TypeVar("T")


def find_states(state: Any, kind: type[T]) -> list[T]:
    """Return the states of a kind, however deep they lie in the state of an optimizer.

    Args:
      state: of an optimizer, or any tree that holds one.
      kind: such as `ClipByGlobalNormState`.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    found = []
    for leaf in leaves:
        if isinstance(leaf, kind):
            found.append(leaf)
            if isinstance(leaf, tuple):  # a named tuple may hold others of its kind
                found += find_states(tuple(leaf), kind)
    return found
