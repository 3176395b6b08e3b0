"""Finding the LSTMs of a tree of parameters, and where their gates lie."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lstm_optax.gates.blocks import GateMap, GatePart
from lstm_optax.gates.leaves import Leaf, named_leaves, split_name
from lstm_optax.gates.packed_arrays import CuDNNLayout, cudnn_parts, haiku_parts
from lstm_optax.gates.separate_arrays import apart_parts
from lstm_optax.gates.stacked_arrays import FUSED, fused_parts

Layout = str | CuDNNLayout | None
Leaves = Mapping[tuple[str, ...], Leaf]
LAYOUTS = (*FUSED, "haiku")


def find_gates(
    params: Any, *, layout: Layout | Mapping[str, Layout] = None, names: Any = None
) -> GateMap:
    """Find every LSTM of a tree of parameters, and where each gate's blocks lie.

    By names and shapes together: this library's layer, the LSTM cells of Flax (NNX and Linen),
    Haiku, Equinox, Keras and PyTorch. Only shapes are read, so leaves may be tracers or
    ShapeDtypeStruct; None and `optax.MaskedNode` are passed over. Other recurrent cells are no
    LSTMs. What may or may not be one is an error, never a guess. In an ensemble, whose arrays have
    one more axis in front as `jax.vmap` makes it, each member is an LSTM of its own, named such as
    "lstm[0]".

    Args:
      params: any tree: nested or flat dictionaries, `nnx.State`, modules, tuples of LSTMParams.
      layout: a name in "lstm_optax", "flax", "haiku", "equinox" (also PyTorch's LSTMCell), "keras",
        "torch": look for that one alone; a `CuDNNLayout`, for the flat vector; or a dictionary from
        the beginning of names, such as "encoder/lstm", to one of these, or to None where there is
        no LSTM, all other places being looked at as usual.
      names: a tree like `params` with a name for each leaf, where the tree itself has none, such as
        `[v.path for v in model.trainable_variables]` of a Keras model.

    Raises:
      ValueError: there is no LSTM; a leaf has the name of an LSTM's parameter and a shape that does
        not fit, or the names and shapes do not tell; the leaf is named, and the argument that
        settles it.
    """
    leaves = named_leaves(params, names)
    parts: list[GatePart] = []
    for place, at, theirs in _places(leaves, layout):
        found = list(_parts(at, theirs, told=place is not None))
        if place is not None and not found:
            raise ValueError(f"there is no LSTM of layout {at!r} at {place!r}: {_some(theirs)}")
        parts += found
    if not parts:
        raise ValueError(f"there is no LSTM in these parameters: {_some(leaves)}")
    _check_disjoint(parts, leaves)
    order = {leaf.path: i for i, leaf in enumerate(leaves.values())}
    return GateMap(tuple(sorted(parts, key=lambda p: (order[p.path], p.index[0].start))))


def gate_finder(gates: Callable[[Any], GateMap] | None) -> Callable[[Any], GateMap]:
    """Return the function that an argument `gates` stands for: `find_gates` by default.

    Raises:
      ValueError: it is no function.
    """
    if gates is not None and not callable(gates):
        raise ValueError(
            f"gates is a {type(gates).__name__}; expected a function of the parameters, such as "
            'functools.partial(find_gates, layout="keras")'
        )
    return gates or find_gates


def _places(
    leaves: Leaves, layout: Layout | Mapping[str, Layout]
) -> Iterator[tuple[str | None, Layout, Leaves]]:
    """Each place of the tree that has a layout of its own, then the rest of the tree."""
    told = dict(layout) if isinstance(layout, Mapping) else {}
    for at in (*told.values(), None if isinstance(layout, Mapping) else layout):
        if at is not None and not isinstance(at, CuDNNLayout) and at not in LAYOUTS:
            raise ValueError(
                f"layout is {at!r}; expected one of {', '.join(LAYOUTS)}, a CuDNNLayout, or a "
                "dictionary from places to these or None"
            )
    rest = dict(leaves)
    for place in sorted(told, key=lambda place: -len(split_name(place))):  # the inmost first
        prefix = split_name(place)
        theirs = {name: leaf for name, leaf in rest.items() if name[: len(prefix)] == prefix}
        if not theirs:
            raise ValueError(f"layout names {place!r}, where nothing is: {_some(leaves)}")
        rest = {name: leaf for name, leaf in rest.items() if name not in theirs}
        if told[place] is not None:
            yield place, told[place], theirs
    yield None, None if isinstance(layout, Mapping) else layout, rest


def _parts(layout: Layout, leaves: Leaves, *, told: bool) -> Iterator[GatePart]:
    if isinstance(layout, CuDNNLayout):
        yield from cudnn_parts(layout, _flat_vector(leaves))
        return
    for name in FUSED if layout is None else {layout} & FUSED.keys():
        yield from fused_parts(name, leaves, told=layout is not None)
    if layout in (None, "flax"):
        yield from apart_parts(leaves)
    if layout in (None, "haiku"):
        yield from haiku_parts(leaves, told=told)


def _flat_vector(leaves: Leaves) -> Leaf:
    flat = [leaf for leaf in leaves.values() if leaf.shape is not None and len(leaf.shape) == 1]
    if len(flat) != 1:
        raise ValueError(
            f"{len(flat)} vectors may be cuDNN's, of {_some(leaves)}; name the one by "
            "layout={'its name': CuDNNLayout(…)}"
        )
    return flat[0]


def _check_disjoint(parts: list[GatePart], leaves: Leaves) -> None:
    seen = set()
    for part in parts:
        place = part.path, tuple((cut.start, cut.stop) for cut in part.index)
        if place in seen:
            leaf = next(leaf for leaf in leaves.values() if leaf.path == part.path)
            raise ValueError(f"{leaf} fits two layouts: name the right one by layout=")
        seen.add(place)


def _some(leaves: Leaves) -> str:
    """The first names and shapes, for an error."""
    shown = [f"{leaf} {leaf.shape}" for leaf in leaves.values()][:6]
    more = ", …" if len(leaves) > len(shown) else ""
    return (", ".join(shown) or "the tree is empty") + more
