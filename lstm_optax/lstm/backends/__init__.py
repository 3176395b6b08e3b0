"""Implementations of `lstm_sequence`, all with the same values and gradients."""
