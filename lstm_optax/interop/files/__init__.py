"""Files of other libraries read as NumPy arrays; no code in a file is run."""

from lstm_optax.interop.files.numpy_values import as_numpy as as_numpy
from lstm_optax.interop.files.torch_file import read_torch
from lstm_optax.interop.files.weight_file import load_weights, save_weights

__all__ = ["load_weights", "read_torch", "save_weights"]
