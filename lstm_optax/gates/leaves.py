"""The leaves of any tree by name."""

import re
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """A leaf of a tree: its location and shape."""

    path: tuple[Any, ...]  # key path, as in `jax.tree_util.tree_flatten_with_path`
    name: tuple[str, ...]  # the names on the path; "a/b" and "a.b" are split into "a" and "b"
    shape: tuple[int, ...] | None  # None if the leaf is masked or not an array

    def __str__(self) -> str:
        return repr("/".join(self.name)) if self.name else "the root"


def named_leaves(params: Any, names: Any = None) -> dict[tuple[str, ...], Leaf]:
    """Return the leaves of a tree by name.

    Args:
      params: any tree.
      names: a tree of strings with a name for each leaf; by default names come from the key paths.

    Raises:
      ValueError: `names` does not have one string for each leaf, or two leaves have the same name.
    """
    import jax
    import optax

    def is_masked(node: Any) -> bool:
        return node is None or isinstance(node, optax.MaskedNode)

    found = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_masked)[0]
    leaf_names = [_name_of_path(path) for path, _ in found]
    if names is not None:
        given = jax.tree.leaves(names)
        if len(given) != len(found) or not all(isinstance(name, str) for name in given):
            raise ValueError(
                f"names has {len(given)} leaves; expected one string for each of the "
                f"{len(found)} leaves of the parameters, such as [v.path for v in variables]"
            )
        leaf_names = [split_name(name) for name in given]
    leaves = {}
    for name, (path, value) in zip(leaf_names, found, strict=True):
        shape = None if is_masked(value) else getattr(value, "shape", None)
        leaf = Leaf(path, name, None if shape is None else tuple(shape))
        if name in leaves:
            raise ValueError(f"two leaves have the name {leaf}: pass different names with names=")
        leaves[name] = leaf
    return leaves


def _name_of_path(path: tuple) -> tuple[str, ...]:
    from jax.tree_util import GetAttrKey

    if path and isinstance(path[-1], GetAttrKey) and path[-1].name in ("value", "raw_value"):
        path = path[:-1]  # the array of a Flax variable
    name = []
    for key in path:
        part = next((getattr(key, a) for a in ("key", "idx", "name") if hasattr(key, a)), key)
        name += split_name(str(part))
    return tuple(name)


def split_name(name: str) -> tuple[str, ...]:
    """Return the parts of a name such as "a/b.c"."""
    return tuple(part for part in re.split(r"[./]", name) if part)
