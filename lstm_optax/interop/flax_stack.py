"""Flax modules that form a stack: their cells, and the options of an equivalent `LSTM`."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from lstm_optax.interop.flax import CELLS, inner_cell


def flax_stack(cells: Any, bidirectional: bool) -> tuple[list[Any], dict[str, Any]]:
    """Return the cells in the order of the carry, and the options of the equivalent `LSTM`.

    Args:
      cells: a cell, an `nnx.RNN` of one, an `nnx.Bidirectional` of two, the tree of a cell's
        parameters, or a sequence of these.
      bidirectional: whether the cells alternate between forward and backward directions; ignored
        for `nnx.Bidirectional`.

    Raises:
      ValueError: modules with different options or a shared cell, or modules that an `LSTM` stack
        cannot represent.
    """
    layers = _as_list(cells)
    options: dict[str, Any] = dict(bidirectional=bidirectional)
    options |= _common_attribute("time_major", [m for m in layers if isinstance(m, _RUNNERS)])
    both = [layer for layer in layers if isinstance(layer, nnx.Bidirectional)]
    if both:
        if len(both) != len(layers):
            raise ValueError(
                f"{len(both)} of {len(layers)} layers are nnx.Bidirectional; expected all or none"
            )
        if kinds := {type(layer).__name__ for layer in both} - {"Bidirectional"}:
            raise ValueError(f"got a {', '.join(kinds)}; expected nnx.Bidirectional itself")
        if any(layer.merge_fn is not nnx.Bidirectional.merge_fn for layer in both):
            raise ValueError(
                "merge_fn is not the default; this LSTM concatenates the two directions"
            )
        options["bidirectional"] = True
        layers = [rnn for layer in both for rnn in (layer.forward_rnn, layer.backward_rnn)]
    else:
        for i, rnn in enumerate(layers):
            _check_direction(rnn, backward=bidirectional and i % 2 == 1)
    cells = [inner_cell(layer) for layer in layers]
    modules = [id(cell) for cell in cells if isinstance(cell, CELLS)]
    if len(set(modules)) < len(modules):
        raise ValueError(
            "one cell occurs twice, so both layers share its parameters; this LSTM has parameters "
            "for each: pass nnx.clone(cell) as the second"
        )
    options |= _common_attribute("dtype", [cell for cell in cells if isinstance(cell, CELLS)])
    return cells, {name: value for name, value in options.items() if value is not None}


_RUNNERS = (nnx.RNN, nnx.Bidirectional)


def _check_direction(rnn: Any, *, backward: bool) -> None:
    if not isinstance(rnn, nnx.RNN):
        return
    if not backward and rnn.reverse:
        raise ValueError(
            "the nnx.RNN of a forward direction has reverse=True; for a single layer that runs "
            "backwards, use lstm_sequence(…, reverse=True)"
        )
    if backward and not (rnn.reverse and rnn.keep_order):
        raise ValueError(
            f"the nnx.RNN of a backward direction has reverse={rnn.reverse} and "
            f"keep_order={rnn.keep_order}; this LSTM keeps the outputs of both directions at their "
            f"own times: set reverse=True and keep_order=True, or pass only the cell"
        )


def _as_list(cells: Any) -> list[Any]:
    single = isinstance(cells, (Mapping, nnx.Module)) and not isinstance(cells, nnx.List)
    if single or not isinstance(cells, (Sequence, nnx.List)):
        return [cells]
    return list(cells)


def _common_attribute(name: str, modules: list[Any]) -> dict[str, Any]:
    """Return the attribute that all modules share, or nothing if there are no modules."""
    values = [getattr(module, name) for module in modules]
    if any(value != values[0] for value in values):
        raise ValueError(f"{name} of the layers is {values}; expected the same in all")
    return {name: values[0]} if values else {}
