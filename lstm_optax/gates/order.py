"""The gates of an LSTM: their names, and their order in the library's own kernels."""

GATES = ("input", "forget", "cell", "output")
"""The order i, f, g, o of the blocks along the last axis of a kernel, as in PyTorch and Flax."""

KINDS = ("kernel_ih", "kernel_hh", "bias")
"""What a gate has: a kernel for the input, one for the hidden state, a bias."""


def gate_slice(gate: str, hidden_features: int) -> slice:
    """Return where the block of `gate` lies along an axis of 4 · hidden_features.

    Raises:
      ValueError: there is no gate of that name.
    """
    if gate not in GATES:
        raise ValueError(f"unknown gate {gate!r}; the gates are {', '.join(GATES)}")
    start = GATES.index(gate) * hidden_features
    return slice(start, start + hidden_features)
