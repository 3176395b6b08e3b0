"""Optimizers that reproduce other libraries and papers: signature, defaults and trajectory.

Each source has a module. A preset equals its source up to rounding. It is one `optax.chain` of
links from `lstm_optax.transforms` and Optax, inside an average if the source has one. Options of a
source that do not change the result are omitted.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
