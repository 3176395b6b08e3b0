"""The library's optimizers, each one `optax.chain` of links, and the table `OPTIMIZERS`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
