"""The LSTM layer for Flax NNX, and the pure functions it is made of."""

from lstm_optax.lstm.bptt import (
    CotangentClip,
    CotangentNormClip,
    clip_cotangent,
    clip_cotangent_norm,
)
from lstm_optax.lstm.cell import LSTMParams, LSTMState, lstm_cell
from lstm_optax.lstm.convert.equinox import lstm_params_from_equinox, lstm_params_to_equinox
from lstm_optax.lstm.convert.flax import lstm_params_from_flax, lstm_params_to_flax
from lstm_optax.lstm.convert.haiku import lstm_params_from_haiku, lstm_params_to_haiku
from lstm_optax.lstm.convert.keras import lstm_params_from_keras, lstm_params_to_keras
from lstm_optax.lstm.convert.module import module_from_torch, module_to_torch
from lstm_optax.lstm.convert.tensorflow import (
    lstm_params_from_tensorflow,
    lstm_params_to_tensorflow,
)
from lstm_optax.lstm.convert.torch import lstm_params_from_torch, lstm_params_to_torch
from lstm_optax.lstm.flow import GradientFlow, probe
from lstm_optax.lstm.initializers import init_chrono, init_forget_bias, init_orthogonal
from lstm_optax.lstm.layer import LSTM
from lstm_optax.lstm.sequence import BACKENDS, lstm_sequence
from lstm_optax.lstm.vanishing import vanishing_penalty
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
    "lstm_params_from_equinox",
    "lstm_params_from_flax",
    "lstm_params_from_haiku",
    "lstm_params_from_keras",
    "lstm_params_from_tensorflow",
    "lstm_params_from_torch",
    "lstm_params_to_equinox",
    "lstm_params_to_flax",
    "lstm_params_to_haiku",
    "lstm_params_to_keras",
    "lstm_params_to_tensorflow",
    "lstm_params_to_torch",
    "lstm_sequence",
    "module_from_torch",
    "module_to_torch",
    "probe",
    "vanishing_penalty",
]
