"""Search for states of a given type in an optimizer state."""

from typing import Any, TypeVar

import jax

T = TypeVar("T")


def find_states(state: Any, kind: type[T]) -> list[T]:
    """Return all states of a type in an optimizer state, at any depth.

    Args:
      state: the state of an optimizer, or any tree that contains one.
      kind: the type, such as `ClipByGlobalNormState`. Instances inside another instance are
        returned too.
    """
    found = [state] if isinstance(state, kind) else []
    inside = jax.tree.leaves(state, is_leaf=lambda n: n is not state and isinstance(n, kind))
    return found + [s for n in inside if isinstance(n, kind) for s in find_states(n, kind)]
