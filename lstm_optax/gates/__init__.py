"""Gates of an LSTM, and their location in the parameters of several libraries.

`find_gates` imports JAX when it is called; importing this package does not.
"""

from lstm_optax.gates._find_gates import find_gates
from lstm_optax.gates.blocks import GateBlock, GateMap, GatePart
from lstm_optax.gates.order import GATES, KINDS, gate_slice
from lstm_optax.gates.packed_arrays import CuDNNLayout

__all__ = [
    "GATES",
    "KINDS",
    "CuDNNLayout",
    "GateBlock",
    "GateMap",
    "GatePart",
    "find_gates",
    "gate_slice",
]
