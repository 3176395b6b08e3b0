"""Training of any recurrent model; the loss, the optimizer and the batches are arguments."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
