"""The library's optimizers, each one `optax.chain` of links, and the table `OPTIMIZERS`."""

from lstm_optax.optimizers.classic import (
    adam,
    momentum_sgd,
    nadam,
    nadamw,
    nesterov_sgd,
    rmsprop,
    rmsprop_momentum,
    sgd,
)
from lstm_optax.optimizers.recurrent import awd_sgd, gate_muon
from lstm_optax.optimizers.table import OPTIMIZERS

__all__ = [
    "OPTIMIZERS",
    "adam",
    "awd_sgd",
    "gate_muon",
    "momentum_sgd",
    "nadam",
    "nadamw",
    "nesterov_sgd",
    "rmsprop",
    "rmsprop_momentum",
    "sgd",
]
