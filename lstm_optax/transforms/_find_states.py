"""States found wherever they stand in the state of a chain."""

from typing import Any, TypeVar

import jax

T = TypeVar("T")


def find_states(state: Any, kind: type[T]) -> list[T]:
    """Return the states of a kind, however deep they lie in the state of an optimizer.

    Args:
      state: of an optimizer, or any tree that holds one.
      kind: such as `ClipByGlobalNormState`; one inside another of its kind is found too.
    """
    found = [state] if isinstance(state, kind) else []
    inside = jax.tree.leaves(state, is_leaf=lambda n: n is not state and isinstance(n, kind))
    return found + [s for n in inside if isinstance(n, kind) for s in find_states(n, kind)]
