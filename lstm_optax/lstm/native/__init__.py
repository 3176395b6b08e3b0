"""The recurrence of an LSTM layer in C++, behind XLA's foreign function interface."""
