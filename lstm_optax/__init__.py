"""Optimizers for LSTMs in JAX: exact, composable Optax update rules, and a Flax LSTM to train.

The names of daily use are here, all others in their rooms: `lstm_optax.data`, `.interop`,
`.presets`, `.response`, `.runs`, `.bench` and so on. Each is imported when it is first asked for,
so that the command line answers before JAX is needed; `__init__.pyi` lists them.
"""

import lazy_loader

from lstm_optax._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
