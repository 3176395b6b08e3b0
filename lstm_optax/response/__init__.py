"""Responses: an optimizer measured from outside, like a filter.

A filter is known by its outputs for a few standard inputs. For an optimizer the input is a sequence
of gradients and the output the sequence of steps (−update), here in units of the learning rate:

- impulse response, for a gradient of 1 and then zeros: how long one gradient acts. Momentum with a
  decay of .9 steps by 1, .9, .81, …; a rule without memory steps once.
- step response, for a constant gradient of 1: how the steps build up from the first one. Its last
  value is the steady gain: 1 for SGD and Adam, 10 for that momentum.
- a spike of 1,000 among ones: how far one outlier disturbs the later steps through the state.
- the first step for gradients of all sizes: proportional to the gradient for SGD, flat for Adam.
  The knee is the gradient where the two ranges meet: the threshold of a clip, or Adam's ε.
- a cut of the learning rate: whether the steps follow at once, or as slowly as a velocity decays.

Most optimizers are not linear, so no one of these responses predicts the others.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
