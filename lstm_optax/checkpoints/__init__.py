"""Checkpoints of any tree of arrays: saved in the background, sealed last, checked when read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
