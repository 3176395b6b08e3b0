"""Gradient transformations in the form of Optax; this package does not use Flax.

An estimator turns gradients into a running estimate; a link turns updates into updates. Every
optimizer and preset is an `optax.chain` of these.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
