"""LSTM layer for Flax NNX, and the pure functions that it calls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
