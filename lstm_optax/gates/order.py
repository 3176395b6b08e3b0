"""Names of the gates of an LSTM, and their order in the kernels of this library."""

GATES = ("input", "forget", "cell", "output")
"""The gates in the order i, f, g, o of their blocks on the last axis of a kernel.

PyTorch and Flax use the same order."""

KINDS = ("kernel_ih", "kernel_hh", "bias")
"""The parameters of a gate: a kernel for the input, a kernel for the hidden state, and a bias."""


def gate_slice(gate: str, hidden_features: int) -> slice:
    """Return the slice of a gate's block on an axis of length 4 · hidden_features.

    Args:
      gate: a name in `GATES`.
      hidden_features: the number of hidden units, ≥ 1.

    Raises:
      ValueError: the gate is unknown.
    """
    if gate not in GATES:
        raise ValueError(f"unknown gate {gate!r}; the gates are {', '.join(GATES)}")
    start = GATES.index(gate) * hidden_features
    return slice(start, start + hidden_features)
