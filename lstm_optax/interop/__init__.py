"""Conversion of weights, optimizer states and files from and to other libraries."""

from lstm_optax.interop.equinox import lstm_params_from_equinox, lstm_params_to_equinox
from lstm_optax.interop.files import load_weights, read_torch, save_weights
from lstm_optax.interop.flax import lstm_params_from_flax, lstm_params_to_flax
from lstm_optax.interop.haiku import lstm_params_from_haiku, lstm_params_to_haiku
from lstm_optax.interop.keras import lstm_params_from_keras, lstm_params_to_keras
from lstm_optax.interop.layers import (
    lstm_from_flax,
    lstm_from_keras,
    lstm_from_torch,
    lstm_to_flax,
    lstm_to_keras,
    lstm_to_torch,
)
from lstm_optax.interop.models import module_from_torch, module_to_torch
from lstm_optax.interop.tensorflow import lstm_params_from_tensorflow, lstm_params_to_tensorflow
from lstm_optax.interop.torch import lstm_params_from_torch, lstm_params_to_torch
from lstm_optax.interop.torch_optimizer import optimizer_from_torch

__all__ = [
    "load_weights",
    "lstm_from_flax",
    "lstm_from_keras",
    "lstm_from_torch",
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
    "lstm_to_flax",
    "lstm_to_keras",
    "lstm_to_torch",
    "module_from_torch",
    "module_to_torch",
    "optimizer_from_torch",
    "read_torch",
    "save_weights",
]
