"""One training in a folder: its configuration, the run itself, and its pictures and tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
