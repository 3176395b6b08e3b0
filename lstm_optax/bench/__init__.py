"""The benchmark: workloads, contenders that compute the same values, timing in turn, tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
