"""LSTM layer for Flax NNX, and the pure functions that it calls."""

from lstm_optax.lstm._probe import GradientFlow, probe
from lstm_optax.lstm._vanishing_penalty import vanishing_penalty
from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.cotangents import (
    CotangentClip,
    CotangentNormClip,
    clip_cotangent,
    clip_cotangent_norm,
)
from lstm_optax.lstm.initializers import init_chrono, init_forget_bias, init_orthogonal
from lstm_optax.lstm.layer import LSTM
from lstm_optax.lstm.sequence import BACKENDS, lstm_sequence
from lstm_optax.lstm.weights import LSTMWeights

__all__ = [
    "BACKENDS",
    "CotangentClip",
    "CotangentNormClip",
    "GradientFlow",
    "LSTM",
    "LSTMParams",
    "LSTMState",
    "LSTMWeights",
    "clip_cotangent",
    "clip_cotangent_norm",
    "init_chrono",
    "init_forget_bias",
    "init_orthogonal",
    "lstm_cell",
    "lstm_sequence",
    "probe",
    "vanishing_penalty",
]
