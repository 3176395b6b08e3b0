"""Gates of an LSTM, and their location in the parameters of several libraries.

`find_gates` imports JAX when it is called; importing this package does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
