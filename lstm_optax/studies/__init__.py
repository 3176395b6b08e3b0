"""Many trainings: rates, optimizers and seeds side by side, and the tables that compare them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
