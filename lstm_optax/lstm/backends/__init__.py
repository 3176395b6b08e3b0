"""Implementations of `lstm_sequence`: the same values and gradients from each."""
