from ._find_gates import find_gates as find_gates
from .blocks import GateBlock as GateBlock
from .blocks import GateMap as GateMap
from .blocks import GatePart as GatePart
from .order import GATES as GATES
from .order import KINDS as KINDS
from .order import gate_slice as gate_slice
from .packed_arrays import CuDNNLayout as CuDNNLayout
