"""Sweeps over learning rates, optimizers and seeds, and the tables that compare their trials."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
