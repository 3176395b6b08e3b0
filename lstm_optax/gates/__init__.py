"""The gates of an LSTM, and where they lie in the parameters of any library's LSTM.

No JAX is imported before `find_gates` is called.
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
