"""`find_gates`: the location of the gates of every LSTM in a tree of parameters."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lstm_optax.gates.blocks import GateMap, GatePart
from lstm_optax.gates.leaves import Leaf, named_leaves, split_name
from lstm_optax.gates.packed_arrays import CuDNNLayout, cudnn_parts, haiku_parts
from lstm_optax.gates.separate_arrays import separate_parts
from lstm_optax.gates.stacked_arrays import STACKED_LAYOUTS, stacked_parts

Layout = str | CuDNNLayout | None
Leaves = Mapping[tuple[str, ...], Leaf]
LAYOUTS = (*STACKED_LAYOUTS, "haiku")


def find_gates(
    params: Any, *, layout: Layout | Mapping[str, Layout] = None, names: Any = None
) -> GateMap:
    """Find every LSTM in a tree of parameters, and the blocks of its gates.

    LSTMs are recognised by names and shapes: the layer of this library and the LSTM cells of Flax
    (NNX and Linen), Haiku, Equinox, Keras and PyTorch. Only shapes are read, so leaves may be
    tracers or `jax.ShapeDtypeStruct`; None and `optax.MaskedNode` are skipped. Other recurrent
    cells are ignored. If it is unclear whether parameters belong to an LSTM, an error is raised. In
    an ensemble from `jax.vmap`, whose arrays have one more axis in front, each member is a separate
    LSTM with a name such as "lstm[0]".

    Args:
      params: any tree: nested or flat dictionaries, `nnx.State`, modules, tuples of `LSTMParams`.
      layout: one of the names "lstm_optax", "flax", "haiku", "equinox" (also for PyTorch's
        LSTMCell), "keras", "torch" to search for this layout only; a `CuDNNLayout` for the flat
        vector; or a dictionary from path prefixes such as "encoder/lstm" to one of these, or to
        None to exclude a prefix. With a dictionary, all other paths are searched for all layouts.
      names: a tree like `params` with a name for each leaf, for trees without names, such as
        `[v.path for v in model.trainable_variables]` of a Keras model.

    Raises:
      ValueError: there is no LSTM; a leaf has the name of an LSTM parameter, but another shape; or
        it is unclear whether a leaf belongs to an LSTM. The message names the leaf and the argument
        to pass.
    """
    leaves = named_leaves(params, names)
    parts: list[GatePart] = []
    for prefix, prefix_layout, own_leaves in _split_by_layout(leaves, layout):
        found = list(_parts_of(prefix_layout, own_leaves, explicit=prefix is not None))
        if prefix is not None and not found:
            raise ValueError(
                f"there is no LSTM of layout {prefix_layout!r} at {prefix!r}: "
                f"{_first_leaves(own_leaves)}"
            )
        parts += found
    if not parts:
        raise ValueError(f"there is no LSTM in these parameters: {_first_leaves(leaves)}")
    _check_disjoint(parts, leaves)
    order = {leaf.path: i for i, leaf in enumerate(leaves.values())}
    return GateMap(tuple(sorted(parts, key=lambda p: (order[p.path], p.index[0].start))))


def gate_finder(gates: Callable[[Any], GateMap] | None) -> Callable[[Any], GateMap]:
    """Return the function of an argument `gates`, by default `find_gates`.

    Raises:
      ValueError: `gates` is not a function.
    """
    if gates is not None and not callable(gates):
        raise ValueError(
            f"gates is a {type(gates).__name__}; expected a function of the parameters, such as "
            'functools.partial(find_gates, layout="keras")'
        )
    return gates or find_gates


def _split_by_layout(
    leaves: Leaves, layout: Layout | Mapping[str, Layout]
) -> Iterator[tuple[str | None, Layout, Leaves]]:
    """Yield (prefix, layout, leaves) for each prefix in `layout`, then the rest with prefix None.

    Excluded prefixes are not yielded.
    """
    by_prefix = dict(layout) if isinstance(layout, Mapping) else {}
    rest_layout = None if isinstance(layout, Mapping) else layout
    for value in (*by_prefix.values(), rest_layout):
        if value is not None and not isinstance(value, CuDNNLayout) and value not in LAYOUTS:
            raise ValueError(
                f"layout is {value!r}; expected one of {', '.join(LAYOUTS)}, a CuDNNLayout, or a "
                "dictionary from path prefixes to these or None"
            )
    rest = dict(leaves)
    for prefix in sorted(by_prefix, key=lambda prefix: -len(split_name(prefix))):  # longest first
        start = split_name(prefix)
        own = {name: leaf for name, leaf in rest.items() if name[: len(start)] == start}
        if not own:
            raise ValueError(
                f"layout has the key {prefix!r}, but no parameter there: {_first_leaves(leaves)}"
            )
        rest = {name: leaf for name, leaf in rest.items() if name not in own}
        if by_prefix[prefix] is not None:
            yield prefix, by_prefix[prefix], own
    yield None, rest_layout, rest


def _parts_of(layout: Layout, leaves: Leaves, *, explicit: bool) -> Iterator[GatePart]:
    """Yield the parts of a layout, or of all layouts for None.

    Args:
      layout: a name, a `CuDNNLayout`, or None.
      leaves: by name.
      explicit: whether the user passed the layout for the prefix of these leaves.
    """
    if isinstance(layout, CuDNNLayout):
        yield from cudnn_parts(layout, _flat_vector(leaves))
        return
    for name in STACKED_LAYOUTS if layout is None else {layout} & STACKED_LAYOUTS.keys():
        yield from stacked_parts(name, leaves, explicit=layout is not None)
    if layout in (None, "flax"):
        yield from separate_parts(leaves)
    if layout in (None, "haiku"):
        yield from haiku_parts(leaves, explicit=explicit)


def _flat_vector(leaves: Leaves) -> Leaf:
    """Return the only one-dimensional leaf."""
    vectors = [leaf for leaf in leaves.values() if leaf.shape is not None and len(leaf.shape) == 1]
    if len(vectors) != 1:
        raise ValueError(
            f"found {len(vectors)} vectors that may hold cuDNN's weights, in "
            f"{_first_leaves(leaves)}; expected one: pass layout={{'its name': CuDNNLayout(…)}}"
        )
    return vectors[0]


def _check_disjoint(parts: list[GatePart], leaves: Leaves) -> None:
    """Raise ValueError if two layouts found the same region of a leaf."""
    seen = set()
    for part in parts:
        region = part.path, tuple((axis.start, axis.stop) for axis in part.index)
        if region in seen:
            leaf = next(leaf for leaf in leaves.values() if leaf.path == part.path)
            raise ValueError(f"{leaf} matches two layouts: pass the right one as layout=")
        seen.add(region)


def _first_leaves(leaves: Leaves) -> str:
    """Return the first names and shapes, for an error."""
    shown = [f"{leaf} {leaf.shape}" for leaf in leaves.values()][:6]
    more = ", …" if len(leaves) > len(shown) else ""
    return (", ".join(shown) or "the tree is empty") + more
