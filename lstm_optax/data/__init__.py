"""Text as integer codes, n-gram models, time series, naive forecasts, and synthetic sequences."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
