"""What a transformation does, measured from outside as one would a filter."""

from lstm_optax.response.measuring import explain
from lstm_optax.response.records import (
    DtypeResponse,
    RateResponse,
    Response,
    ScaleRange,
    ScaleResponse,
    SpikeResponse,
)

__all__ = [
    "DtypeResponse",
    "RateResponse",
    "Response",
    "ScaleRange",
    "ScaleResponse",
    "SpikeResponse",
    "explain",
]
