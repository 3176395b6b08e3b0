"""The update rules as each source ships them: its signature, names, defaults and trajectory.

One module for each source. Each preset is one `optax.chain` of the links of
`lstm_optax.transforms` and Optax's own, with an average around it where the source has one, and
equals its source to rounding. Options of a source that cannot change the result are left out.
"""

from lstm_optax.presets import algoperf, dozat, graves, hinton, keras, links, sutskever, tf1, torch

__all__ = [
    "algoperf",
    "dozat",
    "graves",
    "hinton",
    "keras",
    "links",
    "sutskever",
    "tf1",
    "torch",
]
