"""Files of other libraries as NumPy arrays; what is read is data, never code."""

from lstm_optax.files.plain import as_numpy as as_numpy
from lstm_optax.files.torch_files import read_torch
from lstm_optax.files.weight_files import load_weights, save_weights

__all__ = ["load_weights", "read_torch", "save_weights"]
