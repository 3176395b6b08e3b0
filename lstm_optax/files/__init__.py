"""Files of other libraries as NumPy arrays; what is read is data, never code."""

from lstm_optax.files.plain import as_numpy as as_numpy
from lstm_optax.files.torch_files import read_torch

__all__ = ["read_torch"]
