"""The leaves of a tree by their names, whichever kind of tree it is."""

import re
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """A leaf of a tree."""

    path: tuple[Any, ...]  # its key path
    name: tuple[str, ...]  # the names on its path, those of "a/b" and "a.b" apart
    shape: tuple[int, ...] | None  # None where there is no array, as under a mask

    def __str__(self) -> str:
        return repr("/".join(self.name)) if self.name else "the root"


def named_leaves(params: Any, names: Any = None) -> dict[tuple[str, ...], Leaf]:
    """Return the leaves by name; names come from the key paths, or from a tree of strings.

    Raises:
      ValueError: `names` is no tree of strings like the parameters, or two leaves have one name.
    """
    import jax
    import optax

    def missing(node):
        return node is None or isinstance(node, optax.MaskedNode)

    found = jax.tree_util.tree_flatten_with_path(params, is_leaf=missing)[0]
    paths = [_name(path) for path, _ in found]
    if names is not None:
        given = jax.tree.leaves(names)
        if len(given) != len(found) or not all(isinstance(name, str) for name in given):
            raise ValueError(
                f"names has {len(given)} leaves; expected one string for each of the "
                f"{len(found)} leaves of the parameters, such as [v.path for v in variables]"
            )
        paths = [split_name(name) for name in given]
    leaves = {}
    for name, (path, value) in zip(paths, found, strict=True):
        shape = None if missing(value) else getattr(value, "shape", None)
        leaf = Leaf(path, name, None if shape is None else tuple(shape))
        if name in leaves:
            raise ValueError(f"two leaves have the name {leaf}: give each its own by names=")
        leaves[name] = leaf
    return leaves


def _name(path: tuple) -> tuple[str, ...]:
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
