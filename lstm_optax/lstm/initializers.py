"""Initial values for the LSTMs in existing parameters, of any library."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from lstm_optax.checks import ANY, Range
from lstm_optax.gates import GateBlock, GateMap
from lstm_optax.gates._find_gates import gate_finder

Params = TypeVar("Params")
FindGates = Callable[[Any], GateMap]


def init_forget_bias(
    params: Params, value: float | Array = 1.0, *, gates: FindGates | None = None
) -> Params:
    """Set the bias of every forget gate, in all layers and directions.

        b_f = value

    b_f is the total bias of the gate. With two biases, as in PyTorch, the first is set to the value
    and the second to 0. Haiku adds 1 to its forget gate, so there the bias is set to value − 1.

    Args:
      params: any tree that `find_gates` reads; other leaves are unchanged.
      value: b_f, any finite number.
      gates: as in `by_gate`.

    Raises:
      ValueError: the value is not a finite number, an LSTM has no bias, or as `find_gates`.

    Reference: Jozefowicz, Zaremba & Sutskever, 2015, ICML.
    """
    ANY.check(value=value)
    return _set_biases(params, lambda cell, size: {"forget": jnp.full(size, value)}, gates)


def init_chrono(
    params: Params, key: PRNGKeyArray, *, max_time: float, gates: FindGates | None = None
) -> Params:
    """Set the biases for memories of 1 to `max_time` steps.

        b_f = log u,  u uniform in [1, max_time − 1];  b_i = −b_f

    σ(b_f) = u/(1 + u), so that a unit forgets in about 1 + u steps. The biases of the cell and of
    the output gate are unchanged. Two biases and Haiku's 1 are treated as in `init_forget_bias`.

    Args:
      params: any tree that `find_gates` reads; other leaves are unchanged.
      key: random key; each layer and direction draws its own numbers.
      max_time: the longest memory, in time steps; at least 2.
      gates: as in `by_gate`.

    Raises:
      ValueError: `max_time` is below 2, an LSTM has no bias, or as `find_gates`.

    Reference: Tallec & Ollivier, 2018, arXiv:1804.11188.
    """
    Range(2).check(max_time=max_time)

    def draw(cell, size):
        u = jax.random.uniform(jax.random.fold_in(key, cell), size, maxval=max_time - 1, minval=1.0)
        return {"forget": jnp.log(u), "input": -jnp.log(u)}

    return _set_biases(params, draw, gates)


def init_orthogonal(
    params: Params, key: PRNGKeyArray, *, scale: float = 1.0, gates: FindGates | None = None
) -> Params:
    """Set each gate's block of the recurrent kernel to an orthogonal matrix.

        Wᵀ W = scale² I,  W [hidden, hidden] of each gate, layer and direction

    Args:
      params: any tree that `find_gates` reads; other leaves are unchanged.
      key: random key; each block draws its own numbers.
      scale: value of all singular values.
      gates: as in `by_gate`.

    Raises:
      ValueError: the scale is not a finite number, or as `find_gates`.

    Reference: Saxe, McClelland & Ganguli, 2014, arXiv:1312.6120.
    """
    ANY.check(scale=scale)
    found = gate_finder(gates)(params)
    number = {name: i for i, name in enumerate(_gate_ids(found))}
    orthogonal = jax.nn.initializers.orthogonal(scale)

    def new(block, x):
        if block.kind != "kernel_hh":
            return x
        dtype = jnp.promote_types(x.dtype, jnp.float32)  # JAX has no QR in bfloat16
        return orthogonal(jax.random.fold_in(key, number[_gate_id(block)]), x.shape, dtype)

    return found.map(new, params)


def _gate_id(block: GateBlock) -> tuple[str, int, str, str]:
    return block.lstm, block.layer, block.direction, block.gate


def _gate_ids(found: GateMap) -> list[tuple[str, int, str, str]]:
    return sorted({_gate_id(block) for block in found.blocks})


def _set_biases(
    params: Params,
    values: Callable[[int, tuple[int, ...]], dict[str, Array]],
    gates: FindGates | None,
) -> Params:
    """Set the total bias of the gates in values(index of the layer and direction, bias shape)."""
    found = gate_finder(gates)(params)
    cells = sorted({name[:3] for name in _gate_ids(found)})
    biased = {_gate_id(block)[:3] for block in found.blocks if block.kind == "bias"}
    if bare := [cell for cell in cells if cell not in biased]:
        lstm, layer, direction = bare[0]
        raise ValueError(f"the LSTM at {lstm!r}, layer {layer}, {direction}, has no bias to set")
    seen = set()

    def new(block, x):
        if block.kind != "bias":
            return x
        value = values(cells.index(_gate_id(block)[:3]), x.shape).get(block.gate)
        if value is None:
            return x
        first = _gate_id(block) not in seen
        seen.add(_gate_id(block))
        return value - block.added if first else jnp.zeros_like(x)

    return found.map(new, params)
