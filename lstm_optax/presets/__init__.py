"""The update rules as each source ships them: its signature, names, defaults and trajectory.

One module for each source. Each preset is one `optax.chain` of the links of
`lstm_optax.transforms` and Optax's own, and equals its source to rounding. Options of a source
that cannot change the result are left out.
"""

from lstm_optax.presets import (
    algoperf,
    averages,
    dozat,
    graves,
    hinton,
    keras,
    links,
    sutskever,
    tf1,
    torch,
    torch_state,
)

__all__ = [
    "algoperf",
    "averages",
    "dozat",
    "graves",
    "hinton",
    "keras",
    "links",
    "sutskever",
    "tf1",
    "torch",
    "torch_state",
]
