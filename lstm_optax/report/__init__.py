"""The report of a study: one page that opens from disk, its plots as files, and a table."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
